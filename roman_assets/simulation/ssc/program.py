"""What the command does: the pipeline that the manifest asks for."""

from __future__ import annotations

import os
from pathlib import Path

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.references.context import configure_crds
from roman_assets.simulation.ssc.microlensing import VisitWork, require_earlier_visits
from roman_assets.simulation.ssc.slitless import deliver_exposure, deliver_visit
from roman_assets.ssc.command import DELIVERY_VARIABLE, MANIFEST_VARIABLE, Mode
from roman_assets.ssc.exchange import Exchange
from roman_assets.ssc.handover import HandoverManifest


def run() -> None:
    """Work on the manifest that the environment names, and deliver into the directory it names.

    Raises
    ------
    BadInputError
        If one of them is not named, or an image is not what the manifest says any more.
    PassingFaultError
        If an earlier visit of a season is handed over for the same release, and not delivered.
    """
    manifest = HandoverManifest.model_validate_json(_named(MANIFEST_VARIABLE).read_bytes())
    directory = _named(DELIVERY_VARIABLE)
    root = DataRoot.from_environment()
    configure_crds(root)
    # what it made of the release before, nobody else sees yet
    role = Role.PUBLIC if manifest.release is None else Role.OPERATIONS
    with ArchiveReader(root, role) as archive:
        if Mode.of(manifest.optical_element) is Mode.IMAGING:
            require_earlier_visits(manifest, archive, Exchange.of(root))
            VisitWork(manifest, archive, directory).deliver()
        elif manifest.release is not None or manifest.partition == manifest.visit:
            deliver_visit(root, manifest, archive, directory)
        else:
            deliver_exposure(root, manifest, archive, directory)


def _named(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise BadInputError("environment", variable, "is not set", "run this by ssc.toml")
    return Path(value)
