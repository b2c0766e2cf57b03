"""A small installation as scientists meet it: two exposures, a coadd, an overwritten image."""

from __future__ import annotations

import json
from pathlib import Path

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import Step
from roman_assets.records.journal import Journal
from roman_assets.records.record import ProductInput
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import (
    VISIT,
    association,
    cal,
    exposure,
    moment,
    record_of,
    sha256,
)

UNCAL, CAL, CAT = (
    cal().replace("_cal.asdf", suffix) for suffix in ("_uncal.asdf", "_cal.asdf", "_cat.parquet")
)
COADD, COADD_CAT = (
    association().replace("_asn.json", suffix) for suffix in ("_coadd.asdf", "_cat.parquet")
)
PACKETS = ProductInput(name=f"{exposure()}_wfi01_l0", sha256=sha256(b"packets"))
SQUARE = "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1"
FACTS = {
    "survey": "HLWAS", "exposure_type": "WFI_IMAGE", "nexposures": 2, "ra": 270.0, "dec": 66.0,
    "radius": 0.11, "footprint": SQUARE, "start_time": moment(0).isoformat(),
    "end_time": moment(100).isoformat(),
}  # fmt: skip


def publish(root: DataRoot, contents: dict[str, bytes], second: int, **fields: object) -> None:
    fields = {"metadata": FACTS, "committed_at": moment(second)} | fields
    Journal(root).write(record_of(root, contents, **fields))


def made_from(contents: dict[str, bytes]) -> tuple[ProductInput, ...]:
    return tuple(
        ProductInput(name=name, sha256=sha256(content)) for name, content in contents.items()
    )


def small_archive(path: Path) -> DataRoot:
    """L1 from packets; L2 and L4 made twice; L3 and L4 made from the first of them."""
    root = DataRoot(path)
    publish(root, {UNCAL: b"ramp"}, 0, step=Step.FORMATTING, inputs=(PACKETS,))
    ramp = made_from({UNCAL: b"ramp"})
    early = {"context": "roman_0001.pmap", "software": {"roman_assets": "0.1.0+g1234567"}}
    publish(root, {CAL: b"image 1", CAT: b"sources 1"}, 1, inputs=ramp, **early)
    images = made_from({CAL: b"image 1"})
    asn = json.dumps({"asn_type": "image"}).encode()
    publish(
        root,
        {association(): asn, COADD: b"coadd", COADD_CAT: b"coadd sources"},
        2,
        step=Step.VISIT,
        partition=VISIT,
        inputs=images,
    )
    publish(root, {CAL: b"image 2", CAT: b"sources 2"}, 3, inputs=ramp, context="roman_0002.pmap")
    fold(root)
    return root
