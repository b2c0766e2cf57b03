"""Load each ASDF schema from YAML once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from roman_assets.acceleration.guest import Acceleration

Schema = tuple[Any, str]


def make_schema_loader() -> Callable[[str], Schema]:
    """Return a function that returns the schema at an URL, and the URL it was found at."""
    from asdf import schema

    def load_schema(url: str) -> Schema:
        resources = schema.get_config().resource_manager
        if url in resources:
            return _parsed(resources[url]), url
        found: Schema = schema._load_schema(url)
        return found

    return load_schema


@functools.lru_cache(maxsize=1024)
def _parsed(content: bytes) -> Any:
    """Parse a schema; equal content is the same schema, whatever its URL."""
    import yaml
    from asdf import yamlutil

    return yaml.load(content, Loader=yamlutil.AsdfLoader)  # noqa: S506 - a safe loader


def _outputs(make_loader: Callable[[], Callable[[str], Schema]]) -> Any:
    from asdf import get_config

    load = make_loader()
    known = sorted(get_config().resource_manager)
    urls = [
        next(url for url in reversed(known) if name in url)
        for name in ("roman/schemas/wfi_image-", "core/ndarray-", "yaml-schema/draft-")
    ]
    return [load(url) for url in urls for _ in range(2)]


ACCELERATIONS = (
    Acceleration(
        replaces="asdf.schema:_make_schema_loader",
        replacement=make_schema_loader,
        reason=(
            "Every validation loads the schemas it refers to from YAML again, some 740 for a "
            "detector: half of the time of a small image."
        ),
        obsolete="asdf caches the schemas of its resource manager, as it caches those of files.",
        checked_with={"asdf": "5.4.0"},
        source="35604eeeccf65e95b68c2222e49ccf6db0edcdce40f2e095457cc607b1b34d84",
        outputs=_outputs,
        mirrors=("asdf.schema:_load_schema", "asdf.schema:_make_jsonschema_refresolver"),
    ),
)
