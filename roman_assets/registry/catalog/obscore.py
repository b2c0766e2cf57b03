"""The IVOA's view of the archive: ObsCore 1.1, one row for each available public data product.

The Virtual Observatory's services and tools ask for these columns. The view reads ``products``
alone, so that it answers as fast as that; what a product does not know is null.
"""

# Names and constants of this package are put into SQL, never values of users.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from roman_assets.access import Role
from roman_assets.products.bandpass import BANDPASSES
from roman_assets.products.kind import GROUP_SCOPES, KINDS, Level, ProductKind
from roman_assets.products.name import PROMPT_RELEASE
from roman_assets.products.pixel_scale import NATIVE_ARCSEC

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import Table

OBSCORE = "ivoa_obscore"
"""Name of the view."""

ARCHIVE_URL = "archive_url"
PUBLISHER = "publisher"
DEFAULT_PUBLISHER = "ivo://roman-assets/products"
"""Identifies who publishes; who does so to the Virtual Observatory registers one of their own."""


class DataProductType(StrEnum):
    """ObsCore's words for what a data product is, as far as they are needed."""

    IMAGE = "image"
    CUBE = "cube"
    TIMESERIES = "timeseries"
    SPECTRUM = "spectrum"
    MEASUREMENTS = "measurements"


@dataclass(frozen=True)
class _DataKind:
    """What a kind of products is to ObsCore.

    Parameters
    ----------
    type
        ``dataproduct_type``.
    observable
        ``o_ucd``: what the values of the product are, as an IVOA UCD; None if there is no word.
    is_light
        Whether they are light of the optical element's band.
    """

    type: DataProductType
    observable: str | None
    is_light: bool = True


DATA_KINDS: Mapping[str, _DataKind] = {
    "uncal": _DataKind(DataProductType.IMAGE, "phot.count"),
    "guide_window": _DataKind(DataProductType.CUBE, "phot.count"),
    "face": _DataKind(DataProductType.TIMESERIES, "pos.eq", is_light=False),
    "cal": _DataKind(DataProductType.IMAGE, "arith.rate;phot.count"),
    "coadd": _DataKind(DataProductType.IMAGE, "phot.flux.density.sb"),
    "exposure_catalog": _DataKind(DataProductType.MEASUREMENTS, "phot.flux.density"),
    "visit_catalog": _DataKind(DataProductType.MEASUREMENTS, "phot.flux.density"),
    "exposure_segmentation": _DataKind(DataProductType.IMAGE, "meta.id"),
    "visit_segmentation": _DataKind(DataProductType.IMAGE, "meta.id"),
    "microlensing_reference_frame": _DataKind(DataProductType.IMAGE, "arith.rate;phot.count"),
    "microlensing_object_fiducial_catalog": _DataKind(DataProductType.MEASUREMENTS, "phot.mag"),
    "microlensing_object_periodic_catalog": _DataKind(DataProductType.MEASUREMENTS, "phot.mag"),
    "microlensing_light_curve_catalog": _DataKind(DataProductType.TIMESERIES, "phot.mag"),
    "microlensing_variability_catalog": _DataKind(DataProductType.MEASUREMENTS, "src.var"),
    "microlensing_event_catalog": _DataKind(DataProductType.MEASUREMENTS, "src.var"),
    "spec_decontam_2d": _DataKind(DataProductType.SPECTRUM, "arith.rate;phot.count"),
    "spec_individual_1d": _DataKind(DataProductType.SPECTRUM, "phot.flux.density;em.wl"),
    "spec_combined_1d": _DataKind(DataProductType.SPECTRUM, "phot.flux.density;em.wl"),
    "spec_catalog": _DataKind(DataProductType.MEASUREMENTS, "phot.flux.density;em.wl"),
}
"""By name of the kind.

Associations, supplements, location tables, what is known of a search and reports on quality are
not data of the sky and are not listed.
"""

_CALIBRATION_LEVELS = {Level.L1: 1, Level.L2: 2, Level.L3: 3, Level.L4: 4}
"""ObsCore's levels: instrumental, calibrated, enhanced, analysed; L0 is never listed (R1)."""

_FORMATS = {"asdf": "application/x-asdf", "parquet": "application/vnd.apache.parquet"}


@dataclass(frozen=True)
class ObsCoreColumn:
    """One column of the view.

    Parameters
    ----------
    name, type, description
        ObsCore's name, the DuckDB type and what it says.
    sql
        How it follows from a row of products (``product``), its kind (``kind``) and the band of its
        optical element (``band``).
    ucd, utype, unit
        As the standard gives them.
    """

    name: str
    type: str
    description: str
    sql: str
    ucd: str
    utype: str
    unit: str | None = None


_MJD = "epoch_us({time}) / 86400e6 + 40587"
_IMAGE = f"kind.type = '{DataProductType.IMAGE}'"
_KEY = (
    "concat_ws('/', product.level, lpad(product.program::varchar, 5, '0'), "
    "coalesce(product.visit, split_part(product.name, '_', 3)), product.name)"
)

OBSCORE_COLUMNS: tuple[ObsCoreColumn, ...] = (
    ObsCoreColumn(
        "dataproduct_type", "VARCHAR", "image, cube, timeseries, spectrum or measurements",
        "kind.type", "meta.code.class", "ObsDataset.dataProductType",
    ),
    ObsCoreColumn(
        "dataproduct_subtype", "VARCHAR", "kind of the product", "product.kind",
        "meta.code.class", "ObsDataset.dataProductSubtype",
    ),
    ObsCoreColumn(
        "calib_level", "INTEGER", "calibration level: 1 to 4", "kind.calib_level",
        "meta.code;obs.calib", "ObsDataset.calibLevel",
    ),
    ObsCoreColumn(
        "obs_collection", "VARCHAR", "Roman prompt, or Roman and the data release",
        f"'Roman ' || if(product.release = '{PROMPT_RELEASE}', 'prompt', product.release)",
        "meta.id", "DataID.collection",
    ),
    ObsCoreColumn(
        "obs_id", "VARCHAR", "the file set: what the products of a detector or skycell share",
        "product.file_set", "meta.id", "DataID.observationID",
    ),
    ObsCoreColumn(
        "obs_title", "VARCHAR", "what the product is, and a grade that warns of it",
        "kind.title || if(product.quality in ('SUSPECT', 'BAD'), "
        "' (graded ' || product.quality || ': ' || product.quality_reason || ')', '')",
        "meta.title;obs", "DataID.title",
    ),
    ObsCoreColumn(
        "obs_publisher_did", "VARCHAR", "identifier of the product given by the publisher",
        f"coalesce(getvariable('{PUBLISHER}'), '{DEFAULT_PUBLISHER}') || '?' || product.name",
        "meta.ref.ivoid", "Curation.publisherDID",
    ),
    ObsCoreColumn(
        "obs_release_date", "VARCHAR", "when it became available, UTC, ISO 8601",
        "strftime(product.committed_at at time zone 'UTC', '%Y-%m-%dT%H:%M:%S.%g')",
        "time.release", "Curation.releaseDate",
    ),
    ObsCoreColumn(
        "data_rights", "VARCHAR", "who may see it", "product.access",
        "meta.code", "Curation.rights",
    ),
    ObsCoreColumn(
        "access_url", "VARCHAR", "where the file is; a bare key if nobody says where",
        f"coalesce(getvariable('{ARCHIVE_URL}') || '/', '') || {_KEY}",
        "meta.ref.url", "Access.reference",
    ),
    ObsCoreColumn(
        "access_format", "VARCHAR", "media type of the file", "kind.format",
        "meta.code.mime", "Access.format",
    ),
    ObsCoreColumn(
        "access_estsize", "BIGINT", "size of the file", "ceil(product.size / 1000)",
        "phys.size;meta.file", "Access.size", "kbyte",
    ),
    ObsCoreColumn(
        "target_name", "VARCHAR", "null: surveys have no targets", "null",
        "meta.id;src", "Target.name",
    ),
    ObsCoreColumn(
        "s_ra", "DOUBLE", "right ascension of the centre, ICRS", "product.ra",
        "pos.eq.ra", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C1", "deg",
    ),
    ObsCoreColumn(
        "s_dec", "DOUBLE", "declination of the centre, ICRS", 'product."dec"',
        "pos.eq.dec", "Char.SpatialAxis.Coverage.Location.Coord.Position2D.Value2.C2", "deg",
    ),
    ObsCoreColumn(
        "s_fov", "DOUBLE", "diameter of the circle that holds the footprint", "2 * product.radius",
        "phys.angSize;instr.fov", "Char.SpatialAxis.Coverage.Bounds.Extent.diameter", "deg",
    ),
    ObsCoreColumn(
        "s_region", "VARCHAR", "footprint, ICRS",
        r"trim(regexp_replace(product.footprint, '\s+', ' ', 'g'))",
        "pos.outline;obs.field", "Char.SpatialAxis.Coverage.Support.Area",
    ),
    ObsCoreColumn(
        "s_resolution", "DOUBLE", "FWHM of the PSF, for images of one exposure",
        f"if({_IMAGE} and kind.calib_level in (1, 2), band.psf_fwhm, null)",
        "pos.angResolution", "Char.SpatialAxis.Resolution.Refval.value", "arcsec",
    ),
    ObsCoreColumn(
        "s_xel1", "BIGINT", "elements of the image along x", "product.naxis1",
        "meta.number", "Char.SpatialAxis.numBins1",
    ),
    ObsCoreColumn(
        "s_xel2", "BIGINT", "elements of the image along y", "product.naxis2",
        "meta.number", "Char.SpatialAxis.numBins2",
    ),
    ObsCoreColumn(
        "s_pixel_scale", "DOUBLE", "side of a pixel of the image",
        f"if({_IMAGE}, if(kind.is_of_exposure, {NATIVE_ARCSEC}, product.pixel_scale), null)",
        "phys.angSize;instr.pixel",
        "Char.SpatialAxis.Sampling.RefVal.SamplingPeriod", "arcsec",
    ),
    ObsCoreColumn(
        "t_min", "DOUBLE", "start of the (first) exposure, MJD, UTC",
        _MJD.format(time="product.start_time"),
        "time.start;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StartTime", "d",
    ),
    ObsCoreColumn(
        "t_max", "DOUBLE", "end of the (last) exposure, MJD, UTC",
        _MJD.format(time="product.end_time"),
        "time.end;obs.exposure", "Char.TimeAxis.Coverage.Bounds.Limits.StopTime", "d",
    ),
    ObsCoreColumn(
        "t_exptime", "DOUBLE", "exposure time, of a coadd's typical pixel", "product.exposure_time",
        "time.duration;obs.exposure", "Char.TimeAxis.Coverage.Support.Extent", "s",
    ),
    ObsCoreColumn(
        "t_resolution", "DOUBLE",
        "of one exposure: its duration, of a ramp: the mean time between resultants",
        "if(kind.is_of_exposure, product.exposure_time / coalesce(product.naxis3, 1), null)",
        "time.resolution", "Char.TimeAxis.Resolution.Refval.value", "s",
    ),
    ObsCoreColumn(
        "t_xel", "BIGINT", "resultants of a ramp, 1 for other images",
        f"if({_IMAGE}, coalesce(product.naxis3, 1), null)", "meta.number",
        "Char.TimeAxis.numBins",
    ),
    ObsCoreColumn(
        "em_min", "DOUBLE", "shortest wavelength of the optical element", "band.em_min",
        "em.wl;stat.min", "Char.SpectralAxis.Coverage.Bounds.Limits.LoLimit", "m",
    ),
    ObsCoreColumn(
        "em_max", "DOUBLE", "longest wavelength of the optical element", "band.em_max",
        "em.wl;stat.max", "Char.SpectralAxis.Coverage.Bounds.Limits.HiLimit", "m",
    ),
    ObsCoreColumn(
        "em_res_power", "DOUBLE", "of a filter centre over width, of a disperser the mean",
        "band.res_power", "spect.resolution", "Char.SpectralAxis.Resolution.ResolPower.refVal",
    ),
    ObsCoreColumn(
        "em_res_power_min", "DOUBLE", "lowest resolving power of a disperser",
        "band.res_power_min", "spect.resolution;stat.min",
        "Char.SpectralAxis.Resolution.ResolPower.LoLimit",
    ),
    ObsCoreColumn(
        "em_res_power_max", "DOUBLE", "highest resolving power of a disperser",
        "band.res_power_max", "spect.resolution;stat.max",
        "Char.SpectralAxis.Resolution.ResolPower.HiLimit",
    ),
    ObsCoreColumn(
        "em_xel", "BIGINT", "1 for images through a filter",
        f"if({_IMAGE} and band.psf_fwhm is not null, 1, null)", "meta.number",
        "Char.SpectralAxis.numBins",
    ),
    ObsCoreColumn(
        "o_ucd", "VARCHAR", "what the values are", "kind.observable",
        "meta.ucd", "Char.ObservableAxis.ucd",
    ),
    ObsCoreColumn(
        "pol_states", "VARCHAR", "null: no polarization is measured", "null",
        "meta.code;phys.polarization", "Char.PolarizationAxis.stateList",
    ),
    ObsCoreColumn(
        "pol_xel", "BIGINT", "null: no polarization is measured", "null",
        "meta.number", "Char.PolarizationAxis.numBins",
    ),
    ObsCoreColumn(
        "facility_name", "VARCHAR", "the telescope", "'Roman'",
        "meta.id;instr.tel", "Provenance.ObsConfig.Facility.name",
    ),
    ObsCoreColumn(
        "instrument_name", "VARCHAR", "the Wide Field Instrument", "'WFI'",
        "meta.id;instr", "Provenance.ObsConfig.Instrument.name",
    ),
    ObsCoreColumn(
        "proposal_id", "VARCHAR", "program number", "lpad(product.program::varchar, 5, '0')",
        "meta.id;obs.proposal", "Provenance.Proposal.identifier",
    ),
)  # fmt: skip
"""All mandatory columns of ObsCore 1.1 and those optional ones that say something here.

ObsCore has no column for an operator's grade, so the title says what is suspect or bad, and why.
"""


def obscore_sql(available: str, *others: str) -> str:
    """Return the SQL of the view.

    Parameters
    ----------
    available
        The table of the products that the archive shows.
    others
        Columns of that table that the view has as well.
    """
    columns = ", ".join(
        f"({column.sql})::{column.type} as {column.name}" for column in OBSCORE_COLUMNS
    )
    columns += "".join(f", product.{other}" for other in others)
    return f"""
        select {columns}
        from (select * from {available} where access = '{Role.PUBLIC}') as product
            join (values {", ".join(_kind_rows())}) as kind(name, type, calib_level, observable,
                is_light, is_of_exposure, format, title) on product.kind = kind.name
            left join (values {", ".join(_band_rows())}) as band(element, em_min, em_max,
                res_power, res_power_min, res_power_max, psf_fwhm)
                on product.optical_element = band.element and kind.is_light
    """


def _kind_rows() -> Iterator[str]:
    for kind in KINDS:
        if (data := DATA_KINDS.get(kind.name)) is not None:
            yield _row(
                kind.name, data.type, _CALIBRATION_LEVELS[kind.level], data.observable,
                data.is_light, kind.scope not in GROUP_SCOPES, _FORMATS[kind.extension],
                _title(kind),
            )  # fmt: skip


def _title(kind: ProductKind) -> str:
    return kind.description.rstrip(".")


def _band_rows() -> Iterator[str]:
    for element, band in BANDPASSES.items():
        lowest, highest = band.resolving_power or (None, None)
        if lowest is None or highest is None:
            centre, width = (band.shortest + band.longest) / 2, band.longest - band.shortest
            typical = centre / width
        else:
            typical = (lowest + highest) / 2
        yield _row(
            element.value, band.shortest * 1e-6, band.longest * 1e-6, typical, lowest, highest,
            band.psf_fwhm,
        )  # fmt: skip


def _row(*values: str | float | bool | None) -> str:
    return f"({', '.join(map(_literal, values))})"


def _literal(value: str | float | bool | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"{value!r}::double" if isinstance(value, float) else str(value).lower()


def obscore_table(rows: pd.DataFrame) -> Table:
    """Return rows of the view as an astropy table that can be written as a VOTable.

    Parameters
    ----------
    rows
        With columns of the view, as `ArchiveSearch.obscore` returns them.

    Returns
    -------
    astropy.table.Table
        With unit, UCD, utype and description of every column; unknown values are masked. Write it
        with ``table.write("obscore.xml", format="votable")``.
    """
    from astropy.table import MaskedColumn, Table

    table = Table(masked=True)
    for column in OBSCORE_COLUMNS:
        values, unknown = rows[column.name], rows[column.name].isna().to_numpy()
        kind, missing = _NUMPY[column.type]
        filled = values.astype(object).where(~unknown, missing)
        table[column.name] = MaskedColumn(
            filled.to_numpy().astype(kind),
            mask=unknown,
            unit=column.unit,
            description=column.description,
            meta={"ucd": column.ucd, "utype": column.utype},
        )
    return table


_NUMPY: Mapping[str, tuple[type, object]] = {
    "VARCHAR": (str, ""),
    "INTEGER": (int, 0),
    "BIGINT": (int, 0),
    "DOUBLE": (float, float("nan")),
}
