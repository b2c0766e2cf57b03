"""The links of products: file, preview, origin, what was made from it, and cutouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

from roman_assets.products.kind import KIND_BY_NAME
from roman_assets.products.name import ProductName
from roman_assets.records.record import ProductInput
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.service.archive_service import Service
from roman_assets.service.file_endpoint import MEDIA_TYPES
from roman_assets.service.vo.descriptor import cutout_descriptor
from roman_assets.service.vo.votable import Field, votable

MOST_IDENTIFIERS = 1000
LINKS_TYPE = "application/x-votable+xml;content=datalink"
IMAGES = frozenset({"cal", "coadd"})
"""Kinds that have previews and cutouts."""

_CUTOUT = "cutout"
_FIELDS = (
    Field("ID", ucd="meta.id;meta.main", description="what was asked about"),
    Field("access_url", ucd="meta.ref.url", description="where the linked thing is"),
    Field("service_def", ucd="meta.ref", description="descriptor of the linked service"),
    Field("error_message", ucd="meta.code.error", description="why there is no link"),
    Field("description", ucd="meta.note", description="what the link leads to"),
    Field("semantics", ucd="meta.code", description="what it is to the product"),
    Field("content_type", ucd="meta.code.mime", description="media type"),
    Field("content_length", "long", None, unit="byte", ucd="phys.size;meta.file",
          description="size"),
    Field("content_qualifier", ucd="meta.code", description="kind of data product"),
    Field("local_semantics", ucd="meta.code", description="kind of product in this archive"),
    Field("link_auth", ucd="meta.code", description="whether a login is needed"),
    Field("link_authorized", "boolean", None, ucd="meta.code", description="whether it is given"),
)  # fmt: skip

_Row = tuple[object, ...]


def links_table(
    service: Service, identifiers: list[str], url: str, most_rows: int
) -> Iterator[str]:
    """Go through the parts of the VOTable with the links of products.

    Parameters
    ----------
    service
        Whose registry is asked.
    identifiers
        IVOA identifiers of products, or official names.
    url
        Address of the service.
    most_rows
        Rows of the answer.
    """
    names = {one: product_of(one) for one in identifiers}
    wanted = {str(name) for name in names.values() if name is not None}
    current = service.registry.generations.current(wanted)
    inputs = {item.name for product in current.values() for item in product.inputs}
    uses = service.registry.generations.made_from(
        ProductInput(name=product.name, sha256=product.sha256) for product in current.values()
    )
    derived = {name for found in uses.values() for name, _ in found}
    known = service.registry.generations.current(inputs | derived)
    rows: list[_Row] = []
    for identifier, name in names.items():
        product = current.get(str(name))
        if product is None:
            rows.append(_failed(identifier))
            continue
        made = uses[ProductInput(name=product.name, sha256=product.sha256)]
        rows += _links_of(identifier, product, {one for one, _ in made}, known, url)
    yield from votable(_FIELDS, rows, most_rows=most_rows, extra=cutout_descriptor_of(url, rows))


def cutout_descriptor_of(url: str, rows: Iterable[_Row]) -> str:
    """Return the descriptor of cutouts, if there is a row that refers to it."""
    subjects = [str(row[0]) for row in rows if row[2] == _CUTOUT]
    if not subjects:
        return ""
    return cutout_descriptor(url, subjects[0] if len(subjects) == 1 else "")


def product_of(identifier: str) -> ProductName | None:
    """Return the product of an identifier, None if it has none."""
    try:
        return ProductName.parse(identifier.rpartition("?")[2])
    except ValueError:
        return None


def _failed(identifier: str) -> _Row:
    reason = "NotFoundFault: the archive has no such public product"
    return (identifier, None, None, reason, None, "#this", *(None,) * 6)


def _links_of(
    identifier: str,
    product: RegisteredProduct,
    derived: Iterable[str],
    known: Mapping[str, RegisteredProduct],
    url: str,
) -> Iterator[_Row]:
    yield _file(identifier, product, "#this", url)
    name = quote(product.name)
    if ProductName.parse(product.name).kind.name in IMAGES:
        yield _row(identifier, f"{url}/previews/{name}", "picture", "#preview", "image/png")
        yield (identifier, None, _CUTOUT, None, "cutout of a region", "#cutout",
               "application/fits", None, "#image", None, "false", True)  # fmt: skip
    yield _row(
        identifier,
        f"{url}/products/{name}",
        "page of the product: each generation, and all it was made from, packets included",
        "#documentation",
        "text/html",
    )
    for item in product.inputs:
        if (made := known.get(item.name)) is not None and made.sha256 == item.sha256:
            yield _file(identifier, made, "#progenitor", url)
    for one in sorted(derived):
        if one in known:
            yield _file(identifier, known[one], "#derivation", url)


def _file(identifier: str, product: RegisteredProduct, semantics: str, url: str) -> _Row:
    kind = ProductName.parse(product.name).kind
    return _row(
        identifier,
        f"{url}/files/{quote(product.name)}",
        KIND_BY_NAME[kind.name].description,
        semantics,
        MEDIA_TYPES[kind.extension],
        product.size,
        kind.name,
    )


def _row(
    identifier: str,
    address: str,
    description: str,
    semantics: str,
    content_type: str,
    size: int | None = None,
    local: str | None = None,
) -> _Row:
    return (identifier, address, None, None, description, semantics, content_type, size, None,
            local, "false", True)  # fmt: skip
