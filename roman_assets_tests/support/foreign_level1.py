"""L1 files as somebody else's formatting system writes them: with roman_datamodels alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asdf
import numpy as np
from astropy.time import Time
from roman_datamodels import datamodels

from roman_assets.products.name import ProductName

NAME = "r0990001001001001001_0001_wfi07_f158_uncal.asdf"
GUIDE_WINDOW = NAME.replace("_uncal", "_gw")
FACE = "r0990001001001001001_0001_f158_face.asdf"
START = Time("2027-06-01T00:00:00", scale="utc")
STOP = Time("2027-06-01T00:02:20", scale="utc")


def foreign_level1(
    directory: Path,
    name: str = NAME,
    changes: Mapping[str, Any] | None = None,
    *,
    data: np.ndarray | None = None,
    amp33: np.ndarray | None = None,
    rename: str | None = None,
) -> Path:
    """Write an L1 ramp; by default of three resultants of 8x8 pixels.

    Parameters
    ----------
    directory
        Where to.
    name
        What its metadata say it is.
    changes
        Other metadata by path, such as ``visit.nexposures``; None takes one out.
    data, amp33
        Pixels.
    rename
        Another file name than the metadata say.
    """
    product = ProductName.parse(name)
    file_set, exposure = product.file_set, product.exposure
    visit = exposure.visit
    pixels = np.full((3, 8, 8), 1000, dtype=np.uint16) if data is None else data
    resultants, rows = pixels.shape[:2]
    node = datamodels.ScienceRawModel.create_fake_data()
    node["data"] = pixels
    node["amp33"] = np.zeros((resultants, rows, 128), np.uint16) if amp33 is None else amp33
    meta = {
        "filename": name,
        "exposure.type": "WFI_IMAGE",
        "exposure.start_time": START,
        "exposure.end_time": STOP,
        "exposure.nresultants": resultants,
        "exposure.read_pattern": [[read + 1] for read in range(resultants)],
        "exposure.frame_time": 3.16247,
        "instrument.detector": file_set.detector,
        "instrument.optical_element": str(file_set.optical_element),
        "observation.visit_id": visit.digits,
        "observation.program": visit.program,
        "observation.execution_plan": visit.execution_plan,
        "observation.pass": visit.pass_,
        "observation.segment": visit.segment,
        "observation.observation": visit.observation,
        "observation.visit": visit.visit,
        "observation.exposure": exposure.exposure,
        "program.subcategory": "HLWA",
        "visit.nexposures": 1,
        "wcsinfo.ra_ref": 270.0,
        "wcsinfo.dec_ref": 66.0,
        "wcsinfo.roll_ref": 0.0,
        "wcsinfo.v2_ref": 1300.0,
        "wcsinfo.v3_ref": -800.0,
        "wcsinfo.v3yangle": -60.0,
        "wcsinfo.vparity": -1,
        "wcsinfo.aperture_name": f"{file_set.detector}_FULL",
        "wcsinfo.s_region": "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1",
        **(changes or {}),
    }
    for path, value in meta.items():
        _set(node["meta"], path.split("."), value)
    return write(node._instance, directory / (rename or name))


def foreign_guide_window(directory: Path) -> Path:
    """Write the guide-window file of the same detector."""
    node = datamodels.L1DetectorGuidewindowModel.create_fake_data()
    meta = {
        "filename": GUIDE_WINDOW,
        "t_start": START,
        "t_stop": STOP,
        "instrument.detector": "WFI07",
        "instrument.optical_element": "F158",
    }
    for path, value in meta.items():
        _set(node["meta"], path.split("."), value)
    return write(node._instance, directory / GUIDE_WINDOW)


def foreign_face(directory: Path) -> Path:
    """Write the FACE file of the exposure."""
    node = datamodels.L1FaceGuidewindowModel.create_fake_data()
    for key, value in {
        "filename": FACE, "t_start": START, "t_stop": STOP, "optical_element": "F158",
    }.items():  # fmt: skip
        node["meta"][key] = value
    return write(node._instance, directory / FACE)


def write(node: Any, path: Path) -> Path:
    """Write a node as `romanisim` does, whether or not it is valid; then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    with asdf.config_context() as config:
        config.validate_on_read = False
        file = asdf.AsdfFile()
        file._tree = asdf.tags.core.AsdfObject({"roman": node})
        with draft.open("wb") as stream:
            _unvalidated(file, stream)
    draft.rename(path)
    return path


def _unvalidated(file: asdf.AsdfFile, stream: Any) -> None:
    """Write invalid metadata too: asdf would refuse them."""
    from unittest import mock

    with mock.patch("asdf.schema.validate"):
        file.write_to(stream)


def _set(tree: Any, path: list[str], value: Any) -> None:
    *places, last = path
    for place in places:
        tree = tree[place]
    if value is None:
        del tree[last]
    else:
        tree[last] = value
