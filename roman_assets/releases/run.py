"""Beginning a data release, and doing its work without Dagster (R7, R8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from roman_assets.calibration.exposure import calibrate_exposure
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.observation import ExposureId
from roman_assets.publishing.attempt import Run
from roman_assets.publishing.step import StepResult
from roman_assets.records.journal import Journal
from roman_assets.records.record import CommitRecord, ReleasePhase, ReleaseStatement, Statement
from roman_assets.references.context import configure_crds
from roman_assets.registry.engine import Engine
from roman_assets.registry.registry import Registry
from roman_assets.registry.releases.declaration import declaration_hash, read_declaration
from roman_assets.registry.releases.state import (
    Release,
    ReleaseState,
    begun_release,
    begun_releases,
    release_partition,
    release_state,
    require_software,
)
from roman_assets.releases.release_plan import exposures_of
from roman_assets.releases.unit import mosaic_release_unit
from roman_assets.software import installed_software
from roman_assets.ssc.handover import hand_over
from roman_assets.ssc.released_images import untold_units

Report = Callable[[str, StepResult], None]
"""Is told of every exposure and unit, and what became of it."""


def begin_release(root: DataRoot, path: Path) -> Release:
    """Put on record that a release is begun: its declaration, and what it is made from.

    Which exposures belong to it is decided now: those of the survey and range that have L1. A
    release that was begun before is given as it was.

    Parameters
    ----------
    root
        The installation.
    path
        The declaration.

    Raises
    ------
    BadInputError
        If the declaration cannot be used, other software or another context is installed than it
        declares or than the release was begun with, it was begun with another declaration, or
        nothing belongs to it.
    PassingFaultError
        If the disk is full.
    """
    configure_crds(root)
    declaration, text = read_declaration(path)
    declaration.require_installed(path)
    Engine(root).fold()
    with Engine(root).folded(), Registry(root) as registry:
        release = begun_release(registry, declaration, text)
        if release is None:
            exposures = exposures_of(registry, declaration)
            if not exposures:
                raise BadInputError(
                    path,
                    "survey, after, before",
                    f"no exposure of {declaration.survey} in this range has L1",
                    "correct the range; `roman-assets release plan` tells what is in it",
                )
            _require_own_names(registry, path, declaration.release, exposures)
            statement = ReleaseStatement(
                release=declaration.release,
                survey=declaration.survey,
                phase=ReleasePhase.BEGUN,
                declaration=declaration_hash(text),
                content=text,
                software=installed_software(Step.RELEASE),
                exposures=exposures,
            )
            record = CommitRecord(
                step=Step.RELEASE,
                partition=release_partition(declaration),
                statement=Statement.RELEASE,
                release=statement,
            )
            Journal(root).write(record)
            release = Release(declaration, statement, record.committed_at)
    Engine(root).fold()
    require_software(release)
    return release


def _require_own_names(
    registry: Registry, path: Path, identity: str, exposures: tuple[str, ...]
) -> None:
    """Refuse names that another survey's release of that identity gives: programs tell them."""
    programs = {exposure[:6] for exposure in exposures}
    for other in begun_releases(registry).values():
        shared = programs & {exposure[:6] for exposure in other.statement.exposures}
        if other.declaration.release == identity and shared:
            raise BadInputError(
                path,
                "release",
                f"{other.declaration} has products of program {min(shared)[1:]} as well, so that "
                "their names would be the same",
                "declare another identity",
            )


def calibrate_for_release(
    root: DataRoot,
    partition: str,
    exposure: ExposureId,
    *,
    workers: int | None = None,
    run: Run | None = None,
) -> StepResult:
    """Make L2 of an exposure again for a data release, with the context that this fixes (R7).

    Parameters
    ----------
    root
        The installation.
    partition
        Names the release (`Release.partition`).
    exposure
        Which one.
    workers
        Processes side by side; None for as many as the machine can feed.
    run
        The run it is done in, for the record.

    Raises
    ------
    BadInputError
        If no such release was begun, the exposure is not one of it, or other software is installed
        than it was begun with.
    PassingFaultError
        If the disk is full.
    """
    with Registry(root) as registry:
        release = begun_releases(registry).get(partition)
    if release is None or str(exposure) not in release.statement.exposures:
        raise BadInputError(
            partition,
            "release",
            "it was not begun" if release is None else f"{exposure} does not belong to it",
            "see `roman-assets release status`",
        )
    require_software(release)
    return calibrate_exposure(
        root,
        exposure,
        context=release.declaration.context,
        data_release=release.declaration.release,
        workers=workers,
        run=run,
    )


def work_on_release(
    root: DataRoot,
    release: Release,
    *,
    workers: int | None = None,
    report: Report = lambda name, result: None,
) -> ReleaseState:
    """Do in this process what is left of a release: L2 first, then the units.

    The SSC is told of the L2 that it works on. It may be stopped at any time; repeated, it goes
    on. What fails is in the state, the rest is made.

    Parameters
    ----------
    root
        The installation.
    release
        As it was begun.
    workers
        Processes side by side; None for as many as the machine can feed.
    report
        Is told of each piece of work.

    Raises
    ------
    BadInputError
        If other software is installed than the release was begun with.
    PassingFaultError
        If the disk is full.
    """
    require_software(release)
    for exposure in state_of(root, release).exposures_to_try:
        result = calibrate_for_release(root, release.partition, exposure, workers=workers)
        report(str(exposure), result)
    _tell_ssc(root, release)
    for unit in state_of(root, release).units_left:
        report(str(unit), mosaic_release_unit(root, unit, workers=workers))
    return state_of(root, release)


def _tell_ssc(root: DataRoot, release: Release) -> None:
    with Registry(root) as registry:
        untold = untold_units(registry, release_state(registry, release))
    hand_over(root, untold)


def state_of(root: DataRoot, release: Release) -> ReleaseState:
    """Look a release up, with all that is committed."""
    Engine(root).fold()
    with Registry(root) as registry:
        return release_state(registry, release)
