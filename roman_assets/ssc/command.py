"""Which command computes in the place of the SSC, or is the SSC's own program (R12).

``ssc.toml`` below the data root says so by survey and mode; without it, or without a row that fits,
deliveries come from outside::

    version = 1

    [[command]]
    surveys = ["GBTDS"]                # all if left out
    mode = "imaging"                   # or "grism", "prism"
    run = ["roman-assets", "microlensing"]

A command is run with its manifest and an empty directory in the environment, and delivers into that
directory as the SSC does into the exchange. What it delivers is checked in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from roman_assets.archive.store import Archive
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.products.kind import Step
from roman_assets.products.observation import OpticalElement, Survey
from roman_assets.registry.registry import Registry
from roman_assets.settings.settings_file import read_settings
from roman_assets.ssc.exchange import FROM_SSC, Exchange
from roman_assets.ssc.handover import HandoverManifest, handed_over_manifest
from roman_assets.ssc.notification import NOTIFICATION

FILE_NAME = "ssc.toml"
_REMEDY = (
    "write version = 1 and tables [[command]] with surveys, mode and run (docs/ssc.md), or remove "
    "the file if deliveries come from outside"
)

MANIFEST_VARIABLE = "ROMAN_ASSETS_SSC_MANIFEST"
"""Path of the manifest that a command works on."""
DELIVERY_VARIABLE = "ROMAN_ASSETS_SSC_DELIVERY"
"""Path of the directory, empty at first, that a command delivers into."""
PUBLIC_VARIABLE = "ROMAN_ASSETS_SSC_ARCHIVE"
"""Where the archive shows products by their official names: a directory or a URL."""


class Mode(StrEnum):
    """How the instrument looked."""

    IMAGING = "imaging"
    GRISM = "grism"
    PRISM = "prism"

    @classmethod
    def of(cls, element: OpticalElement) -> Mode:
        """Return the mode of an optical element."""
        return _MODE_OF_DISPERSER.get(element, cls.IMAGING)


_MODE_OF_DISPERSER = {OpticalElement.GRISM: Mode.GRISM, OpticalElement.PRISM: Mode.PRISM}


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid")

    surveys: tuple[Survey, ...] = tuple(Survey)
    mode: Mode
    run: Annotated[tuple[str, ...], Field(min_length=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    command: tuple[_Command, ...] = ()


def has_commands(root: DataRoot) -> bool:
    """Return whether any command is configured."""
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    return settings is not None and bool(settings.command)


def command_for(root: DataRoot, survey: Survey, mode: Mode) -> tuple[str, ...] | None:
    """Return the command for a survey and mode, None if deliveries come from outside.

    Raises
    ------
    BadInputError
        If the settings file cannot be used, or has two commands for it.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    commands = [] if settings is None else settings.command
    fit = [one.run for one in commands if one.mode is mode and survey in one.surveys]
    if len(fit) > 1:
        raise BadInputError(
            root.path / FILE_NAME, "command", f"{len(fit)} of them are for {survey} {mode}", _REMEDY
        )
    return fit[0] if fit else None


@dataclass(frozen=True)
class Commission:
    """Work for a command: an exposure or visit that was handed over and waits.

    Parameters
    ----------
    command
        What to run.
    manifest
        What the SSC was told.
    environment
        Variables for the command.
    directory
        Where it delivers into.
    """

    command: tuple[str, ...]
    manifest: HandoverManifest
    environment: Mapping[str, str]
    directory: Path

    @property
    def delivery(self) -> str:
        """The name of what it delivers; the same for the same images."""
        return f"{self.manifest.partition}_{self.manifest.digest[:12]}"


def commission(root: DataRoot, step: Step, partition: str, scratch: Path) -> Commission | None:
    """Prepare work for a command.

    Parameters
    ----------
    root
        The installation.
    step, partition
        What waits to be delivered.
    scratch
        An empty directory for the time of the work.

    Returns
    -------
    Commission or None
        None if deliveries come from outside, nothing was handed over, or something was delivered
        since.
    """
    with Registry(root) as registry:
        waiting = registry.receipts.unanswered_handovers([partition])
        manifest = handed_over_manifest(root, partition, registry) if waiting else None
    if manifest is None:
        return None
    command = command_for(root, manifest.survey, Mode.of(manifest.optical_element))
    if command is None:
        return None
    stated, directory = scratch / "manifest.json", scratch / "delivery"
    stated.write_text(manifest.model_dump_json(indent=2))
    directory.mkdir()
    environment = {
        MANIFEST_VARIABLE: str(stated),
        DELIVERY_VARIABLE: str(directory),
        PUBLIC_VARIABLE: Archive.of(root).public,
    }
    return Commission(command, manifest, environment, directory)


def deliver(root: DataRoot, work: Commission) -> None:
    """Put what a command left into the exchange, its notification last.

    Raises
    ------
    BadInputError
        If it left no notification.
    """
    files = sorted(work.directory.iterdir(), key=lambda path: path.name == NOTIFICATION)
    if not files or files[-1].name != NOTIFICATION:
        raise BadInputError(
            " ".join(work.command), NOTIFICATION,
            f"the command left none in {DELIVERY_VARIABLE}",
            "let it write its files there, and this last (docs/ssc.md)",
        )  # fmt: skip
    exchange = Exchange.of(root)
    for path in files:
        exchange.upload(path, FROM_SSC / work.delivery / path.name)
