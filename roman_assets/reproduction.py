"""Making a product again from its record, to see whether it comes out the same (R5, R13).

Inputs come by their hashes out of the archive, or for L1 from the retained L0; context, references
and software are those on record. Nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from roman_assets.archive.store import Archive, sha256_of
from roman_assets.calibration.common_pointing import CommonPointingTask, point_like_the_others
from roman_assets.calibration.detector import DetectorTask, calibrate_detector
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.formatting_step import make_level1, retained_ephemeris
from roman_assets.formatting.landing import LandingArea
from roman_assets.mosaic.coadd import recorded_settings
from roman_assets.mosaic.skycell import SkycellTask, mosaic_skycell
from roman_assets.products.kind import Step
from roman_assets.products.name import EXTERNAL_INPUT, ProductName, SkycellFileSet
from roman_assets.products.pixel_scale import PixelScale
from roman_assets.publishing.workers import Task, Value, WorkerPool, calibration_environment
from roman_assets.reader.content import first_difference
from roman_assets.records.record import ProductInput, fingerprint
from roman_assets.references.context import (
    astrometric_catalog,
    configure_crds,
    require_context,
)
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.software import deciding_software, installed_version, remedy


@dataclass(frozen=True)
class Reproduction:
    """A reproduced product.

    Parameters
    ----------
    product
        What its record says.
    path
        The file that was made.
    difference
        The first difference between the contents, empty if they are equal; None if the file of the
        recorded generation is gone, so that there is nothing to compare with.
    """

    product: RegisteredProduct
    path: Path
    difference: str | None


def reproduce(
    root: DataRoot, name: str, directory: Path, *, generation: int | None = None
) -> Reproduction:
    """Make a product again from its record, and compare it with what was published.

    Parameters
    ----------
    root
        The installation; nothing in it is changed.
    name
        Official name.
    directory
        Where the work is done; an empty directory of the caller's own.
    generation
        Which one, the newest by default.

    Raises
    ------
    BadInputError
        If there is no such product or generation, or it cannot be made as its record says: other
        software is installed, the context is not in the cache, an input's file is gone, a reference
        file or setting is another. It names both sides and the remedy.
    PassingFaultError
        If the disk is full or a worker is lost.
    Exception
        Whatever a step of romancal raises.
    """
    product = recorded_product(root, name, generation)
    make = _MAKERS.get(product.product_name.kind.step)
    if make is None:
        raise BadInputError(
            name, "kind", "it was made elsewhere and delivered", "ask who delivered it"
        )
    _require_software(product)
    made = make(root, product, directory)
    try:
        published = Archive.of(root).local(product.sha256)
    except FileNotFoundError:
        return Reproduction(product, made, None)
    return Reproduction(product, made, first_difference(published, made, product.product_name))


def recorded_product(root: DataRoot, name: str, generation: int | None) -> RegisteredProduct:
    """Return what is on record of a generation of a product, the newest by default.

    Raises
    ------
    BadInputError
        If there is none.
    """
    Engine(root).fold()
    with Registry(root) as registry:
        made = registry.generations.of([name]).get(name, ())
    chosen = [one for one in made if generation in (None, one.generation)]
    if not chosen:
        known = f"1 to {len(made)} are" if made else "see `roman-assets ls` for the names there are"
        what = f"there is no generation {generation}" if made else "there never was such a product"
        raise BadInputError(name, "generation" if made else "name", what, known)
    return chosen[-1]


def _require_software(product: RegisteredProduct) -> None:
    made_with = deciding_software(product.product_name.kind.step, product.software)
    installed = {package: installed_version(package) for package in made_with}
    differing = {
        package: version for package, version in made_with.items() if installed[package] != version
    }
    if differing:
        raise BadInputError(
            product.name,
            "software",
            "it was made with "
            + ", ".join(f"{package} {version}" for package, version in differing.items())
            + "; installed is "
            + ", ".join(f"{package} {installed[package] or 'none'}" for package in differing),
            f"in an environment of its own, {remedy(made_with, product.software)}",
        )


def _level1(root: DataRoot, product: RegisteredProduct, directory: Path) -> Path:
    exposure = product.product_name.exposure
    assert exposure is not None
    return make_level1(LandingArea(root), exposure, product, directory)


def _of_exposure(root: DataRoot, product: RegisteredProduct, directory: Path) -> Path:
    context = _usable_context(root, product)
    catalog = astrometric_catalog(root)
    _require_same_work(product, astrometric_catalog=catalog and sha256_of(catalog))
    paths = _laid_out(root, product, directory)
    (uncal,) = (path for path in paths if ProductName.parse(path.name).kind.name == "uncal")
    orbits = [item for item in product.inputs if _is_external(item)]
    ephemeris = retained_ephemeris(LandingArea(root), orbits[0]) if orbits else None
    task = DetectorTask(uncal, ephemeris, catalog)
    made = _in_worker(calibrate_detector, task, context)
    _require_same_references(product, made.references)
    aligned = tuple(path for path in paths if path != uncal)
    if aligned and made.quality.is_unaligned:
        pointing = CommonPointingTask(made, aligned, catalog)
        made = _in_worker(point_like_the_others, pointing, context)
    return made.files[product.product_name.kind.name]


def _of_visit(root: DataRoot, product: RegisteredProduct, directory: Path) -> Path:
    context = _usable_context(root, product)
    _require_same_work(product, **recorded_settings(product.metadata))
    file_set = product.product_name.file_set
    assert isinstance(file_set, SkycellFileSet)
    scale = PixelScale.recorded(product.metadata)
    task = SkycellTask(file_set, _laid_out(root, product, directory), scale)
    made = _in_worker(mosaic_skycell, task, context)
    _require_same_references(product, made.references)
    return made.files[product.product_name.kind.name]


_MAKERS: Mapping[Step, Callable[[DataRoot, RegisteredProduct, Path], Path]] = {
    Step.FORMATTING: _level1,
    Step.EXPOSURE: _of_exposure,
    Step.VISIT: _of_visit,
}


def _usable_context(root: DataRoot, product: RegisteredProduct) -> str:
    configure_crds(root)
    if product.context is None:
        raise BadInputError(product.name, "context", "none is on record", "nothing can be done")
    return require_context(product.context)


def _require_same_work(product: RegisteredProduct, **settings: object) -> None:
    """Refuse work of which something differs that no other field of the record tells."""
    step = product.product_name.kind.step
    if product.fingerprint != fingerprint(
        step, product.inputs, product.context, product.software, **settings
    ):
        raise BadInputError(
            product.name,
            "fingerprint",
            f"it was made with other settings than {settings or 'none'}",
            "bring the astrometric catalogue and the settings of that time back",
        )


def _require_same_references(product: RegisteredProduct, used: Mapping[str, str]) -> None:
    for kind in sorted({*product.references, *used}):
        recorded, found = product.references.get(kind), used.get(kind)
        if recorded != found:
            raise BadInputError(
                product.name,
                "references",
                f"{kind} was {recorded or 'none'}, {product.context} gives {found or 'none'} now",
                "restore the rules of the context in the cache",
            )


def _laid_out(root: DataRoot, product: RegisteredProduct, directory: Path) -> tuple[Path, ...]:
    """Put the recorded inputs that are products into a directory, under their official names."""
    archive, paths = Archive.of(root), []
    place = directory / str(product.product_name.file_set)
    place.mkdir()
    for item in product.inputs:
        if _is_external(item):
            continue
        paths.append(place / str(ProductName.parse(item.name)))
        try:
            archive.lay_out(item.sha256, paths[-1])
        except FileNotFoundError as error:
            raise BadInputError(
                product.name,
                "inputs",
                f"the file of {item.name} with the sha256 {item.sha256} is gone",
                f"reproduce that generation of {item.name} first and put its file back from a "
                "backup, or choose a generation whose inputs are still there",
            ) from error
    return tuple(paths)


def _is_external(item: ProductInput) -> bool:
    return EXTERNAL_INPUT.fullmatch(item.name) is not None


def _in_worker(function: Callable[[Task], Value], task: Task, context: str) -> Value:
    with WorkerPool(1, calibration_environment(context)) as pool:
        (done,) = pool.run(function, {"reproduction": task})
    if done.error is not None:
        raise done.error
    assert done.value is not None
    return done.value
