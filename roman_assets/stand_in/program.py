"""What the command does: the pipeline that the manifest asks for."""

from __future__ import annotations

import os
from pathlib import Path

from roman_assets.calibration.context import configure_crds
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.pipelines.ssc.command import DELIVERY_VARIABLE, MANIFEST_VARIABLE, Mode
from roman_assets.pipelines.ssc.handover import HandoverManifest
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.stand_in.microlensing import VisitWork


def run() -> None:
    """Work on the manifest that the environment names, and deliver into the directory it names.

    Raises
    ------
    BadInputError
        If one of them is not named, an image is not what the manifest says any more, or the
        manifest is of spectra, for which there is no pipeline here.
    """
    manifest = HandoverManifest.model_validate_json(_named(MANIFEST_VARIABLE).read_bytes())
    directory = _named(DELIVERY_VARIABLE)
    if Mode.of(manifest.optical_element) is not Mode.IMAGING:
        raise BadInputError(
            manifest.partition, "optical_element", f"{manifest.optical_element} disperses light",
            "name a pipeline for spectra in ssc.toml, or wait for the SSC's deliveries",
        )  # fmt: skip
    root = DataRoot.from_environment()
    configure_crds(root)
    with ArchiveReader(root) as archive:
        VisitWork(manifest, archive, directory).deliver()


def _named(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise BadInputError("environment", variable, "is not set", "run this by ssc.toml")
    return Path(value)
