"""Where everything lives: one root directory, one place that knows its layout."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

DATA_ROOT_VARIABLE = "ROMAN_ASSETS_DATA"
"""Data root of the installation, ``data/`` in the working directory by default."""
ARCHIVE_VARIABLE = "ROMAN_ASSETS_ARCHIVE"
"""Object store of archive and registry, ``s3://bucket/prefix``. On disk by default."""
SSC_VARIABLE = "ROMAN_ASSETS_SSC"
"""Exchange with the SSC: a directory or ``s3://``. ``ssc/`` below the data root by default."""


@dataclass(frozen=True)
class DataRoot:
    """The directory tree of one installation.

    Parameters
    ----------
    path
        The root. ``data/README.md`` explains what lies below it.
    object_store
        URL of the place in an object store, ``s3://bucket/prefix``, where archive and registry
        are, with the keys that `key` gives; None if they are below `path`.
    """

    path: Path
    object_store: str | None = None

    @classmethod
    def from_environment(cls) -> DataRoot:
        """Take the root from ``ROMAN_ASSETS_DATA``, else ``data`` in the working directory.

        The archive is in the object store that ``ROMAN_ASSETS_ARCHIVE`` names, if it names one.
        """
        path = Path(os.environ.get(DATA_ROOT_VARIABLE, "data")).absolute()
        return cls(path, os.environ.get(ARCHIVE_VARIABLE, "").rstrip("/") or None)

    def key(self, path: Path) -> str:
        """Return the key, in the object store, of what has or would have a copy at this path."""
        return path.relative_to(self._kept).as_posix()

    @property
    def landing(self) -> Path:
        """L0 packets and ancillary files as received; never visible to general users (R1)."""
        return self.path / "landing"

    @property
    def set_aside(self) -> Path:
        """What could not be used, each with its reason."""
        return self.path / "set_aside"

    @property
    def ssc_exchange(self) -> str:
        """Where SOC and SSC leave files for each other: a directory, or ``s3://bucket/prefix``."""
        place = os.environ.get(SSC_VARIABLE, "").rstrip("/")
        return place or str(self.path / "ssc")

    @cached_property
    def archive(self) -> Path:
        """Public names and the immutable blobs behind them (one file system: hard links)."""
        return self._kept / "archive"

    @cached_property
    def public(self) -> Path:
        """The tree of products under their official names, which general users read."""
        return self.archive / "public"

    @property
    def public_registry(self) -> Path:
        """What general users may know of the products: the published registry without internals."""
        return self.archive / "registry"

    @cached_property
    def blobs(self) -> Path:
        """Immutable file contents by sha256."""
        return self.archive / "blobs"

    @property
    def staging(self) -> Path:
        """Products being written, on the file system of the blobs."""
        return self.archive / "staging"

    @property
    def cache(self) -> Path:
        """Local copies of what is in the object store; may be deleted when nothing runs."""
        return self.path / "cache"

    @property
    def blob_cache(self) -> Path:
        """Local copies of blobs."""
        return self.cache / "blobs"

    @cached_property
    def _kept(self) -> Path:
        """Where archive and registry are, or their copies; those of two stores never mix."""
        if self.object_store is None:
            return self.path
        return self.cache / hashlib.sha256(self.object_store.encode()).hexdigest()[:16]

    @cached_property
    def registry(self) -> Path:
        """Commit records, the folded database and the operators' snapshot of it."""
        return self._kept / "registry"

    @property
    def crds(self) -> Path:
        """The CRDS cache (``CRDS_PATH``), unless the environment names another."""
        return Path(os.environ.get("CRDS_PATH", str(self.path / "crds")))

    @property
    def dagster_home(self) -> Path:
        """Dagster's own storage, when ``DAGSTER_HOME`` names no other."""
        return self.path / "dagster"

    @property
    def scratch(self) -> Path:
        """Working directories of runs; may be deleted when nothing runs."""
        return self.path / "scratch"

    @property
    def reports(self) -> Path:
        """The deadline report, which tells of failures."""
        return self.path / "reports"

    @property
    def alerts(self) -> Path:
        """Alerts that were delivered."""
        return self.path / "alerts"

    @property
    def observatory(self) -> Path:
        """What the simulated telescope knows and the ground must not: truth tables, its sky."""
        return self.path / "observatory"

    @property
    def private(self) -> tuple[Path, ...]:
        """The trees for operations only (R1); everything else is for general users to read."""
        return (
            self.landing, self.set_aside, self.blobs, self.staging, self.registry, self.scratch,
            self.dagster_home, self.reports, self.alerts, self.observatory,
        )  # fmt: skip
