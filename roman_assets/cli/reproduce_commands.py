"""The command that reproduces a product from its record: ``reproduce``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from roman_assets.data_root import DataRoot


def reproduce(
    name: Annotated[str, typer.Argument(help="The official name of a product.")],
    generation: Annotated[
        int | None, typer.Option(min=1, help="Which one; the newest by default.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(file_okay=False, help="Keep what was made in this directory.")
    ] = None,
) -> None:
    """Make a product again from its record and say whether it is the same; exit status 1 if not.

    Inputs by hash, context, references and software are those on record. Nothing is published.
    Arrays, tables and metadata have to be equal, dates and logs not.
    """
    from roman_assets.archive.durability import disk_space
    from roman_assets.publishing.scratch import scratch_directory
    from roman_assets.reproduction import reproduce as make_again

    root = DataRoot.from_environment()
    with scratch_directory(root, "reproduction") as scratch:
        found = make_again(root, name, scratch, generation=generation)
        if to is not None:
            with disk_space(to):
                to.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found.path, to / name)
    product = found.product
    what = f"{name} generation {product.generation}"
    if found.difference is None:
        typer.echo(f"{what}: made, and not compared: its file is gone from the archive")
    elif found.difference:
        typer.secho(f"{what}: it differs: {found.difference}", fg="red")
        raise typer.Exit(1)
    else:
        typer.echo(
            f"{what}: equal, reproduced with {product.context or 'no context'} and "
            + ", ".join(f"{package} {version}" for package, version in product.software.items())
        )
