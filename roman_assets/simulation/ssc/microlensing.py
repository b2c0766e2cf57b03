"""The command: what the microlensing pipeline makes of a visit, from manifest to delivery."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from roman_assets import __version__
from roman_assets.errors import PassingFaultError
from roman_assets.products.kind import KIND_BY_NAME, Scope
from roman_assets.products.name import GroupDetectorFileSet, GroupFileSet, ProductName
from roman_assets.products.observation import ExposureId, VisitId
from roman_assets.products.release_id import Grouping, unit_of
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.record import ProductInput
from roman_assets.simulation.ssc.calibrated_image import CalibratedImage, read_image
from roman_assets.simulation.ssc.draft import DeliveryDraft, write_table
from roman_assets.simulation.ssc.event import THRESHOLD
from roman_assets.simulation.ssc.images import as_input, handed_over, visit_of
from roman_assets.simulation.ssc.photometry import ReferenceFrame, find_objects, measure, stack
from roman_assets.simulation.ssc.season import (
    EPOCH_COLUMNS,
    LightCurve,
    detection_efficiency,
    events,
    light_curves,
    renumbered,
    tied_together,
    variability,
)
from roman_assets.ssc.exchange import TO_SSC, Exchange
from roman_assets.ssc.handover import HandedOverImage, HandoverManifest


def require_earlier_visits(
    manifest: HandoverManifest, archive: ArchiveReader, exchange: Exchange
) -> None:
    """Refuse to work on a visit of a release before the season's earlier ones are delivered.

    Light curves have the epochs of all of them. Prompt ones take what there is, as they are
    reprocessed with each visit.

    Raises
    ------
    PassingFaultError
        If one of them was handed over and is not delivered yet.
    """
    if manifest.release is None:
        return
    visit, identity = visit_of(manifest), manifest.release.release
    delivered = archive.find(
        kind="microlensing_event_catalog", program=visit.program, release=identity
    )
    done = set(delivered["visit"])
    exposures = map(ExposureId.parse, manifest.release.exposures)
    for other in sorted({exposure.visit for exposure in exposures}):
        if str(other) in done or not _is_earlier(other, visit):
            continue
        unit = unit_of(other, identity, Grouping.VISIT)
        if any(exchange.files(TO_SSC / str(unit))):
            raise PassingFaultError(
                f"{manifest.partition} waits for {unit}, which comes before it in the season. "
                "Remedy: none is needed, unless that one failed"
            )


def _is_earlier(one: VisitId, other: VisitId) -> bool:
    """Return whether a visit comes before another one in the same season."""
    same_season = (one.program, one.execution_plan, one.pass_) == (
        other.program, other.execution_plan, other.pass_,
    )  # fmt: skip
    return same_season and one < other


class VisitWork:
    """What is made of one visit.

    Parameters
    ----------
    manifest
        Its images.
    archive
        Where they are, and what was made of the season's earlier visits, for the same release.
    directory
        Where files go.
    """

    def __init__(self, manifest: HandoverManifest, archive: ArchiveReader, directory: Path) -> None:
        self._manifest = manifest
        self._archive = archive
        self._visit = visit_of(manifest)
        self.draft = DeliveryDraft(directory, self._common)

    def deliver(self) -> None:
        """Make everything, and state it in a notification."""
        by_detector: dict[str, list[HandedOverImage]] = {}
        for image in self._manifest.images:
            by_detector.setdefault(image.detector, []).append(image)
        work = [DetectorWork(self, detector, images) for detector, images in by_detector.items()]
        for one in work:
            one.write()
        self._write_season([curve for one in work for curve in one.curves], work)
        self.draft.finish()

    def image(self, image: HandedOverImage) -> CalibratedImage:
        """Read an image as it was handed over."""
        return read_image(handed_over(self._archive, image))

    def open(self, name: str) -> Any:
        """Open a product of the archive."""
        return self._archive.open(name)

    def earlier(self, kind: str, detector: str) -> dict[VisitId, tuple[ProductInput, Path]]:
        """Return what has been delivered of the season's earlier visits, oldest first."""
        found = {}
        rows = self._archive.find(
            kind=kind,
            program=self._visit.program,
            detector=detector,
            release=self._manifest.release_id,
        )
        for row in rows.sort_values("visit").to_dict("records"):
            other = VisitId.parse(row["visit"])
            if _is_earlier(other, self._visit):
                stated = ProductInput(name=row["name"], sha256=row["sha256"])
                found[other] = stated, self._archive.path(row["name"])
        return found

    def name(self, kind: str, detector: str | None = None) -> ProductName:
        """Return the official name of a product of the visit, or of one detector of it."""
        visit, element = self._visit, self._manifest.optical_element
        row = KIND_BY_NAME[kind]
        group = (visit.program, self._manifest.release_id, visit.grouping)
        if row.scope is Scope.GROUP:
            return ProductName(GroupFileSet(*group, element), row)
        return ProductName(GroupDetectorFileSet(*group, str(detector), element), row)

    @property
    def _common(self) -> dict[str, Any]:
        visit = self._visit
        return {
            "program": visit.program, "category": "CCS",
            "subcategory": self._manifest.survey.subcategory,
            "msos_photometry_version": __version__, "msos_events_version": __version__,
            "msos_detection_efficiency_version": __version__, "msos_dqa_version": __version__,
            "msos_processing_id": self._manifest.release_id[:3],
            "season": f"s{visit.pass_ % 100:02d}", "flip": 0,
            "gal_cen_flag": False, "field": f"f{visit.segment % 100:02d}",
            "sequence": f"e{visit.visit % 100:02d}", "equinox": 2000.0, "ref_frame": "ICRS",
            "optical_element": str(self._manifest.optical_element),
        }  # fmt: skip

    def _write_season(self, curves: list[LightCurve], work: Sequence[DetectorWork]) -> None:
        region = work[0].region
        light = [one.light_curves for one in work]
        objects = pd.concat([one.objects for one in work])
        name = self.name("microlensing_variability_catalog")
        write_table(self.draft.path(name), objects.merge(variability(curves), on="object_id"))
        self.draft.add(name, light, {**region, **_about("VariabilityCatalog", name)})
        sure = events(curves, objects)
        found = pd.DataFrame(
            [{"object_id": number, **asdict(event)} for number, event in sure.items()],
            columns=["object_id", "t0", "te", "u0", "source_flux", "blend_flux", "delta_chi2",
                     "reduced_chi2"],
        )  # fmt: skip
        found = objects.astype({"object_id": "int64"}).merge(
            found.astype({"object_id": "int64"}), on="object_id"
        )
        name = self.name("microlensing_event_catalog")
        write_table(self.draft.path(name), found)
        catalog = self.draft.add(name, light, {**region, **_about("EventCatalog", name)})
        efficiency = detection_efficiency(curves)
        self._write_efficiency(efficiency, [catalog, *light])
        searched = {
            "objects": len(curves),
            "events": len(found),
            "threshold_delta_chi2": THRESHOLD,
            "false_alarms_in_steady_light_curves": int((efficiency["BinaryClass"] == "FP").sum()),
            "steady_light_curves": int((efficiency["expected_delta_chi2"] == 0).sum()),
        }
        self._write_report("microlensing_events_dqa", "events", searched, [catalog])
        scatter = [one.scatter / one.noise for one in curves if len(one.time) > 2 and one.noise > 0]
        photometry = {
            "objects": len(curves),
            "epochs": int(max((len(one.time) for one in curves), default=0)),
            "median_scatter_over_photon_noise": float(np.median(scatter)) if scatter else None,
        }
        self._write_report("microlensing_longterm_dqa", "longterm", photometry, light)

    def _write_efficiency(self, searched: pd.DataFrame, inputs: Sequence[ProductInput]) -> None:
        name = self.name("microlensing_detection_efficiency_catalog")
        write_table(self.draft.path(name), searched)
        counts = searched["BinaryClass"].value_counts()
        stated = {f"{kind.lower()}_count": int(counts.get(kind, 0)) for kind in _CLASSES}
        about = {**_about("DetectionEfficiencyCatalog", name), "inject_medium": "lightcurve"}
        self.draft.add(name, inputs, {**about, **stated})

    def _write_report(
        self, kind: str, workflow: str, content: Mapping[str, Any], inputs: Sequence[ProductInput]
    ) -> None:
        name = self.name(kind)
        self.draft.path(name).write_text(json.dumps(dict(content), indent=2))
        about = {**_about("Dqa", name), "dqa_workflow": workflow, "dqa_artifact_type": "report"}
        self.draft.add(name, inputs, about)


_CLASSES = ("TP", "FP", "TN", "FN")


class DetectorWork:
    """What is made of one detector of a visit.

    Parameters
    ----------
    visit
        The work on the visit.
    detector
        WFI01 to WFI18.
    images
        Its images.
    """

    def __init__(self, visit: VisitWork, detector: str, images: Sequence[HandedOverImage]) -> None:
        self._visit = visit
        self._detector = detector
        self._images = [visit.image(image) for image in images]
        self._inputs = [as_input(image) for image in images]
        self.curves: list[LightCurve] = []
        self.light_curves: ProductInput

    @cached_property
    def frame(self) -> ReferenceFrame:
        """The stack of its images."""
        return stack(self._images)

    @property
    def region(self) -> dict[str, Any]:
        """The footprint, as metadata have it."""
        return {"s_region": self._images[0].meta["s_region"]}

    @cached_property
    def _season(self) -> tuple[pd.DataFrame, list[ProductInput]]:
        """The objects of the season, and what they were taken from: its first visit."""
        for stated, path in self._earlier_objects.values():
            return pq.read_table(path).to_pandas(), [stated]
        found = find_objects(self.frame).to_pandas()
        number = int(self._detector[3:]) * 10**6
        found.insert(0, "object_id", np.arange(len(found), dtype=np.int64) + number)
        return found, []

    @cached_property
    def _earlier_objects(self) -> dict[VisitId, tuple[ProductInput, Path]]:
        return self._visit.earlier("microlensing_object_fiducial_catalog", self._detector)

    def _earlier_epochs(self) -> Iterator[tuple[list[ProductInput], pd.DataFrame]]:
        """Go through the measurements of earlier visits, of the objects of the season.

        Visits are not always computed in their order: one of which an earlier one came later was
        measured at objects of its own, which are found again by their places.
        """
        measured = self._visit.earlier("microlensing_object_periodic_catalog", self._detector)
        for visit, (stated, path) in measured.items():
            epochs = pq.read_table(path).to_pandas()
            if visit not in self._earlier_objects:
                continue
            of_them, objects_path = self._earlier_objects[visit]
            theirs = pq.read_table(objects_path).to_pandas()
            yield [stated, of_them], renumbered(epochs, theirs, self.objects)

    @property
    def objects(self) -> pd.DataFrame:
        """``object_id``, ``ra`` and ``dec`` of the season's objects."""
        return self._season[0][["object_id", "ra", "dec"]]

    def write(self) -> None:
        """Write what is made of the detector."""
        fiducial, from_first = self._season
        frame = self._write_frame()
        self._write(
            "microlensing_object_fiducial_catalog", "ObjectCatalog", fiducial,
            [frame, *self._inputs, *from_first],
        )  # fmt: skip
        now = self._measured()
        periodic = self._write(
            "microlensing_object_periodic_catalog", "ObjectCatalog", now, [frame, *self._inputs]
        )
        earlier = list(self._earlier_epochs())
        epochs = tied_together(pd.concat([*(table for _, table in earlier), now]))
        self.light_curves = self._write(
            "microlensing_light_curve_catalog", "LightCurveCatalog", epochs,
            [frame, periodic, *(one for stated, _ in earlier for one in stated)],
        )  # fmt: skip
        self.curves = list(light_curves(epochs))
        self._write_quality(now, frame)

    def _measured(self) -> pd.DataFrame:
        objects = self.objects
        ra, dec = objects["ra"].to_numpy(), objects["dec"].to_numpy()
        tables = []
        for image in self._images:
            flux, error = measure(image, ra, dec)
            rows = {
                "object_id": objects["object_id"].to_numpy(), "mjd": image.mjd, "flux": flux,
                "flux_error": error, "image": image.name,
            }  # fmt: skip
            tables.append(pd.DataFrame(rows, columns=list(EPOCH_COLUMNS)))
        return pd.concat(tables, ignore_index=True)

    def _write_frame(self) -> ProductInput:
        from roman_datamodels import datamodels

        name = self._visit.name("microlensing_reference_frame", self._detector)
        first = self._visit.open(self._images[0].name)
        model = datamodels.MsosStackModel.create_fake_data()
        for section in ("instrument", "observation", "program", "visit", "exposure", "pointing",
                        "wcsinfo", "coordinates"):  # fmt: skip
            model.meta[section] = first.meta[section]
        model.meta.image_list = " ".join(image.name for image in self._images)
        model.meta.filename = str(name)
        frame = self.frame
        model.data, model.uncertainty = frame.data, frame.uncertainty
        model.mask, model.coverage = frame.mask.astype(np.uint8), frame.coverage
        model.psf = frame.psf
        model.save(self._visit.draft.path(name))
        first.close()
        return self._visit.draft.add(name, self._inputs, self._about("ReferenceFrame", name))

    def _write(
        self, kind: str, model: str, table: pd.DataFrame, inputs: Sequence[ProductInput]
    ) -> ProductInput:
        name = self._visit.name(kind, self._detector)
        write_table(self._visit.draft.path(name), table)
        return self._visit.draft.add(name, inputs, self._about(model, name))

    def _write_quality(self, now: pd.DataFrame, frame: ProductInput) -> None:
        name = self._visit.name("microlensing_periodic_dqa", self._detector)
        measured = now[np.isfinite(now["flux"])]
        quality = measured.groupby("image", as_index=False).agg(
            mjd=("mjd", "first"), objects=("object_id", "size"), flux=("flux", "median"),
            flux_error=("flux_error", "median"),
        )  # fmt: skip
        write_table(self._visit.draft.path(name), quality)
        about = {"dqa_workflow": "periodic", "dqa_artifact_type": "catalog"}
        stated = {**self._about("Dqa", name), **about}
        self._visit.draft.add(name, [frame, *self._inputs], stated)

    def _about(self, model: str, name: ProductName) -> dict[str, Any]:
        start = min(image.meta["start"] for image in self._images)
        end = max(image.meta["end"] for image in self._images)
        middle = (np.array(self._images[0].data.shape[::-1]) - 1) / 2
        ra, dec = (float(angle) for angle in self._images[0].wcs(*middle))
        return {
            **_about(model, name), **self.region, "detector": self._detector,
            "ra_field_cen": ra, "dec_field_cen": dec,
            "exptime": float(sum(image.meta["exposure_time"] for image in self._images)),
            "expstart": start.utc.isot, "expend": end.utc.isot,
            "expstart_mjd": float(start.utc.mjd), "expend_mjd": float(end.utc.mjd),
        }  # fmt: skip


def _about(model: str, name: ProductName) -> dict[str, str]:
    return {"model_type": f"Microlensing{model}Schema", "product_type": name.kind.suffix}
