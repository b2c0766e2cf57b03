"""The small file that lets astroquery ask this service instead of MAST."""

from __future__ import annotations

from pathlib import Path

from roman_assets.archive.durability import temporary_name
from roman_assets.errors import BadInputError

FILE_NAME = "astroquery.cfg"
_HEADER = "# Written by roman-assets serve"


def write_client_configuration(directory: Path, url: str) -> Path:
    """Write the configuration that points ``astroquery.mast`` to a service.

    Parameters
    ----------
    directory
        Made if missing. Programs with ``ASTROPY_CONFIG_DIR=<directory>`` ask this service.
    url
        Address of the service.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    BadInputError
        If there is a configuration that somebody else wrote.
    """
    path = directory / FILE_NAME
    if path.exists() and not path.read_text(errors="replace").startswith(_HEADER):
        raise BadInputError(
            path, "file", "it was not written by this command, and would be lost",
            "name another directory, or add the section [mast] with "
            f"server = {url} yourself",
        )  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    draft = temporary_name(path)
    draft.write_text(f"{_HEADER}\n[mast]\nserver = {url}\n")
    return draft.replace(path)
