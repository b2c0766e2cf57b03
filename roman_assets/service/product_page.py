"""The page of a product: picture, metadata, generations, lineage, and code to fetch it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from roman_assets.products.name import ProductName
from roman_assets.reader.lineage import trace
from roman_assets.records.record import ProductInput
from roman_assets.registry.search.generations import RegisteredProduct
from roman_assets.service.archive_service import Service, service_of
from roman_assets.service.datalink.links import IMAGES
from roman_assets.service.generation_history import history_of
from roman_assets.service.lineage_drawing import MOST_IN_COLUMN, draw_lineage
from roman_assets.service.page import html, rows_of
from roman_assets.service.request_error import NotFoundError

_MOST_USES = 200


async def product(request: Request) -> Response:
    """Answer with what is known of a product, each of its generations included."""
    service, name = service_of(request), request.path_params["name"]
    base = request.scope.get("root_path", "").rstrip("/")
    facts = await service.run(functools.partial(_facts, service, name, base))
    url = service.url(request, f"files/{name}")
    return html(request, "product.html", {**facts, "url": url, "snippets": _snippets(url, facts)})


def _facts(service: Service, name: str, base: str) -> dict[str, Any]:
    generations: tuple[RegisteredProduct, ...] = ()
    try:
        kind = ProductName.parse(name).kind
        generations = service.registry.generations.of([name]).get(name, ())
    except ValueError:
        pass
    if not generations:
        raise NotFoundError(f"{name[:200]!r} is not a product of this archive")
    newest = generations[-1]
    used = service.registry.generations.made_from([ProductInput(name=name, sha256=newest.sha256)])
    uses = sorted({user for found in used.values() for user, _ in found})[:_MOST_USES]
    known = service.registry.generations.of(item.name for item in newest.inputs)
    rows = rows_of(service.reader.find(name=name))
    return {
        "name": name,
        "description": kind.description,
        "has_preview": kind.name in IMAGES,
        "row": rows[0] if rows else None,
        "history": history_of(generations),
        "lineage": draw_lineage(trace(service.registry, newest, MOST_IN_COLUMN), base),
        "inputs": [{"name": item.name, "known": item.name in known} for item in newest.inputs],
        "uses": uses,
    }


def _snippets(url: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return title and code of each way to fetch a product; none if it is not available."""
    row = facts["row"]
    if row is None:
        return []
    shell = (
        f"curl --fail --remote-name {url}\n"
        f"echo '{row['sha256']}  {facts['name']}' | sha256sum --check"
    )
    fetch = (
        "from urllib.request import urlretrieve\n\n"
        f'path, _ = urlretrieve("{url}", "{facts["name"]}")\n'
    )
    opened = _OPENED[ProductName.parse(facts["name"]).kind.extension]
    return [("Shell", shell), ("Python", fetch + opened)]


_OPENED = {
    "asdf": "import asdf\n\nwith asdf.open(path) as file:\n    print(file.info())",
    "parquet": 'from astropy.table import Table\n\nprint(Table.read(path, format="parquet"))',
    "png": "from PIL import Image\n\nImage.open(path).show()",
    "json": "import json\nfrom pathlib import Path\n\nprint(json.loads(Path(path).read_text()))",
}
"""How each form of file is opened, by extension."""
