"""Dagster's home of an installation, and the environment its processes need."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from roman_assets.archive.durability import locked, make_directory, private_directory
from roman_assets.data_root import DATA_ROOT_VARIABLE, DataRoot
from roman_assets.errors import BadInputError

INSTANCE_FILE = "dagster.yaml"
WORKSPACE_FILE = "workspace.yaml"
HOME_VARIABLE = "DAGSTER_HOME"
"""Dagster's storage, ``dagster/`` below the data root by default."""

ENVIRONMENT_DEFAULTS = {
    "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": "120",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""Set unless the operator has: a scan of a large landing area may take longer than a minute, and
the parallel work is done by processes, not by threads of numerical libraries."""


def project_directory() -> Path:
    """Return the directory of ``dagster.yaml`` and ``workspace.yaml``.

    In a checkout it is the top level; an installation from a wheel has them in ``share/``.
    """
    checkout = Path(__file__).resolve().parents[3]
    if (checkout / INSTANCE_FILE).is_file():
        return checkout
    return Path(sysconfig.get_path("data")) / "share" / "roman-assets"


def workspace_file() -> Path:
    """Return the workspace that Dagster's processes load."""
    return project_directory() / WORKSPACE_FILE


def dagster_home(root: DataRoot) -> Path:
    """Return Dagster's home: ``DAGSTER_HOME`` if the operator set it, else below the data root."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).absolute() if chosen else root.dagster_home


def prepare_dagster_home(root: DataRoot) -> Path:
    """Create Dagster's home and give it the project's instance settings.

    The settings are linked, not copied, so that a change of the project's ``dagster.yaml`` counts
    at the next start. A ``dagster.yaml`` that the operator put there is left alone. Dagster's
    storage is created too, by one process at a time: two that create it at once leave it unusable.
    Doing it again changes nothing.

    Returns
    -------
    pathlib.Path
        The home.

    Raises
    ------
    BadInputError
        If the project's ``dagster.yaml`` is not there.
    """
    settings = project_directory() / INSTANCE_FILE
    if not settings.is_file():
        raise BadInputError(
            settings,
            INSTANCE_FILE,
            "Dagster's instance settings are missing",
            "install the package again: it brings the file",
        )
    from dagster import DagsterInstance

    home = dagster_home(root)
    # Its logs tell of packets and failures (R1); one that the operator chose is the operator's.
    create = private_directory if home == root.dagster_home else make_directory
    create(home)
    with locked(home):
        link = home / INSTANCE_FILE
        if link.is_symlink() or not link.exists():
            _replace_link(link, settings)
        DagsterInstance.from_config(str(home)).dispose()
    return home


def _replace_link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def dagster_environment(root: DataRoot) -> dict[str, str]:
    """Return the environment for Dagster's webserver, daemon and code server on an installation.

    Returns
    -------
    dict
        The present environment with ``DAGSTER_HOME``, the data root and defaults added.
    """
    return {
        **ENVIRONMENT_DEFAULTS,
        **os.environ,
        HOME_VARIABLE: str(dagster_home(root)),
        DATA_ROOT_VARIABLE: str(root.path.absolute()),
    }
