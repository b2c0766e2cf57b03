"""A Science Support Center that delivers: valid files, or whatever a test makes of them.

It knows the format by its documentation alone and shares no code with what takes deliveries in.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from roman_assets.data_root import DataRoot
from roman_assets.products.kind import KIND_BY_NAME, Scope, Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureType, Survey
from roman_assets.records.journal import Journal
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import (
    VISIT,
    exposure,
    product_bytes,
    record_of,
    sha256,
)

Change = Callable[[dict[str, Any]], None]
GROUP = f"r{VISIT[1:6]}_p_v{VISIT[6:]}"
_SAMPLES = {"string": "x", "integer": 1, "number": 1.0, "boolean": True}
_SCHEMAS = importlib.resources.files("rad.resources") / "schemas"


def image(number: int = 1, element: str = "f146") -> str:
    """Give the name of an L2 image."""
    return f"{exposure(number)}_wfi01_{element}_cal.asdf"


def bulge(kind: str) -> str:
    """Give the name of a product of the visit's microlensing pipeline."""
    return _named(f"microlensing_{kind}", "f146")


def spectrum(kind: str) -> str:
    """Give the name of a product of the grism pipeline."""
    return _named(f"spec_{kind}", "grism")


def _named(name: str, element: str) -> str:
    kind = KIND_BY_NAME[name]
    stem = {
        Scope.GROUP: GROUP,
        Scope.GROUP_DETECTOR: f"{GROUP}_wfi01",
        Scope.DETECTOR: f"{exposure()}_wfi01",
    }[kind.scope]
    return f"{stem}_{element}_{kind.suffix}.{kind.extension}"


def observe(root: DataRoot, *, spectra: bool = False, content: str = "image") -> None:
    """Register the L2 images of two exposures of a visit."""
    for number in (1, 2):
        name = image(number, "grism" if spectra else "f146")
        record = record_of(
            root,
            {name: f"{content} {number}".encode()},
            step=Step.EXPOSURE,
            partition=exposure(number),
            metadata={
                "survey": Survey.HLWAS.value if spectra else Survey.GBTDS.value,
                "exposure_type": (
                    ExposureType.WFI_SPECTRAL if spectra else ExposureType.WFI_IMAGE
                ).value,
                "nexposures": 2,
            },
        )
        Journal(root).write(record)
    fold(root)


def images(*, spectra: bool = False, content: str = "image") -> list[dict[str, str]]:
    """Give the L2 images as inputs."""
    element = "grism" if spectra else "f146"
    return [
        {"name": image(number, element), "sha256": sha256(f"{content} {number}".encode())}
        for number in (1, 2)
    ]


def contents(name: str, text: str) -> bytes:
    """Give the content of a file that is what its name says."""
    if name.endswith("_referenceframe.asdf"):
        return _reference_frame(text)
    return product_bytes(name, text)


def _reference_frame(text: str) -> bytes:
    from roman_datamodels import datamodels

    model = datamodels.MsosStackModel.create_fake_data()
    model.meta.image_list = text
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "stack.asdf"
        model.save(path)
        return path.read_bytes()


def metadata(name: str) -> dict[str, Any]:
    """Give metadata that are as rad's schema of a kind has them, and as the name says."""
    parsed = ProductName.parse(name)
    visit, file_set = parsed.visit, parsed.file_set
    program = visit.program if visit is not None else getattr(file_set, "program", None)
    said = {
        "program": program, "segment": 1, "visit": 1, "season": "s01",
        "observation_id": None if visit is None else visit.digits,
        "data_release_id": getattr(file_set, "release", "p"),
        "optical_element": str(parsed.file_set.optical_element), "subcategory": "GBTD",
        "detector": getattr(parsed.file_set, "detector", None),
        "s_region": "POLYGON ICRS 269.9 65.9 270.1 65.9 270.1 66.1 269.9 66.1",
        "expstart": "2027-06-01T00:00:00", "expend": "2027-06-01T00:10:00",
        "visit_start_time_mjd": 61557.0, "visit_end_time_mjd": 61557.1,
    }  # fmt: skip
    properties, required = _described(f"{parsed.kind.rad_schema}-1.0.0")
    return {
        key: said.get(key) if said.get(key) is not None else _sample(properties[key])
        for key in sorted(required - {"filename", "file_date", "instrument", "origin"})
    }


def _described(schema: str) -> tuple[dict[str, Any], set[str]]:
    content = yaml.safe_load(_SCHEMAS.joinpath(*f"{schema}.yaml".split("/")).read_text())
    properties, required = dict(content.get("properties", {})), set(content.get("required", ()))
    for part in content.get("allOf", ()):
        if "/SSC/" in part.get("$ref", ""):
            more, needed = _described(part["$ref"].partition("/schemas/")[2])
            properties, required = more | properties, required | needed
    return properties, required


def _sample(described: Mapping[str, Any]) -> Any:
    if "enum" in described:
        return described["enum"][0]
    return _SAMPLES[described["type"]]


@dataclass
class Center:
    """Writes deliveries into a directory.

    Parameters
    ----------
    place
        The exchange.
    made
        When the files of the next delivery are made.
    """

    place: Path
    made: datetime = field(default_factory=lambda: datetime(2024, 6, 2, tzinfo=UTC))

    @classmethod
    def of(cls, root: DataRoot) -> Center:
        return cls(root.path / "ssc")

    def deliver(
        self,
        names: Iterable[str],
        inputs: list[dict[str, str]],
        *,
        delivery: str = "first",
        text: str = "x",
        change: Change = lambda notification: None,
        write: Callable[[Path, bytes], Any] = Path.write_bytes,
    ) -> Path:
        """Write files and, last, their notification; gives the directory."""
        directory = self.place / "from_ssc" / delivery
        directory.mkdir(parents=True, exist_ok=True)
        files = {name: contents(name, text) for name in names}
        notification: dict[str, Any] = {
            "version": 1,
            "files": [self._about(name, data, inputs) for name, data in files.items()],
        }
        for name, data in files.items():
            write(directory / name, data)
        change(notification)
        (directory / "notification.json").write_text(json.dumps(notification))
        return directory

    def _about(self, name: str, data: bytes, inputs: list[dict[str, str]]) -> dict[str, Any]:
        return {
            "filename": name,
            "fileSize": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "fileCreationTimestamp": self.made.isoformat(),
            "inputs": inputs,
            "softwareVersions": {"msos": "3.3.0"},
            "metadata": metadata(name),
        }

    def reports(self, delivery: str = "first") -> list[dict[str, Any]]:
        """Read the reports on a delivery."""
        found = sorted((self.place / "reports" / delivery).glob("*.json"))
        return [json.loads(path.read_text()) for path in found]
