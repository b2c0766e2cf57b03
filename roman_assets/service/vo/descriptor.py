"""Descriptions of services inside answers: what clients can ask about each row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from xml.sax.saxutils import quoteattr

from roman_assets.service.vo.votable import Field

IDENTIFIER = "obs_publisher_did"
"""Name and ID of the column that says what a row is about."""

LINKS = "ivo://ivoa.net/std/DataLink#links-1.1"
SODA_SYNC = "ivo://ivoa.net/std/SODA#sync-1.0"


def with_identifier(fields: Iterable[Field], name: str = IDENTIFIER) -> list[Field]:
    """Return fields of which the identifying one has an ID, for descriptors to refer to."""
    return [replace(one, id=IDENTIFIER) if one.name == name else one for one in fields]


def descriptors(url: str) -> str:
    """Return the descriptors of links and cutouts, for a table with an identifier.

    Parameters
    ----------
    url
        Address of the service.
    """
    return _links(url) + cutout_descriptor(url)


def _links(url: str) -> str:
    identifier = _parameter("ID", "char", "*", ref=IDENTIFIER)
    return _resource("datalink", LINKS, f"{url}/datalink/links", identifier)


def cutout_descriptor(url: str, identifier: str | None = None) -> str:
    """Return the descriptor of cutouts.

    Parameters
    ----------
    url
        Address of the service.
    identifier
        Of the product; by default the identifier of each row.
    """
    ref = IDENTIFIER if identifier is None else None
    inputs = (
        _parameter("ID", "char", "*", identifier or "", ref=ref, ucd="meta.id;meta.dataset")
        + _parameter("CIRCLE", "double", "3", xtype="circle", unit="deg", ucd="pos.outline;obs")
        + _parameter("POLYGON", "double", "*", xtype="polygon", unit="deg", ucd="pos.outline;obs")
        + _parameter("POS", "char", "*", ucd="pos.outline;obs")
        + _parameter("RESPONSEFORMAT", "char", "*", "application/fits", ucd="meta.code.mime")
    )
    return _resource("cutout", SODA_SYNC, f"{url}/soda/sync", inputs)


def _resource(name: str, standard: str, address: str, inputs: str) -> str:
    return (
        f'<RESOURCE type="meta" utype="adhoc:service" ID="{name}" name="{name}">\n'
        + _parameter("standardID", "char", "*", standard)
        + _parameter("accessURL", "char", "*", address)
        + f'<GROUP name="inputParams">\n{inputs}</GROUP>\n</RESOURCE>\n'
    )


def _parameter(
    name: str,
    datatype: str,
    arraysize: str,
    value: str = "",
    *,
    ref: str | None = None,
    xtype: str | None = None,
    unit: str | None = None,
    ucd: str | None = None,
) -> str:
    given = {
        "name": name, "datatype": datatype, "arraysize": arraysize, "value": value, "ref": ref,
        "xtype": xtype, "unit": unit, "ucd": ucd,
    }  # fmt: skip
    attributes = "".join(
        f" {key}={quoteattr(text)}" for key, text in given.items() if text is not None
    )
    return f"<PARAM{attributes}/>\n"
