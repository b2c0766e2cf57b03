from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from roman_assets.access import Role
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.kind import Step
from roman_assets.products.name import ProductName
from roman_assets.products.observation import ExposureType, OpticalElement, Survey, VisitId
from roman_assets.reader.archive_reader import ArchiveReader
from roman_assets.records.record import ProductInput
from roman_assets.registry.store.fold import fold
from roman_assets.simulation.ssc.draft import DeliveryDraft, write_table
from roman_assets.simulation.ssc.microlensing import VisitWork, require_earlier_visits
from roman_assets.simulation.ssc.program import run
from roman_assets.ssc.command import MANIFEST_VARIABLE
from roman_assets.ssc.exchange import Exchange
from roman_assets.ssc.handover import HandedOverRelease, HandoverManifest
from roman_assets.ssc.notification import NOTIFICATION, Notification
from roman_assets_tests.support.small_products import commit


def test_a_command_without_its_environment_says_what_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(MANIFEST_VARIABLE, raising=False)
    with pytest.raises(BadInputError, match=MANIFEST_VARIABLE):
        run()


def test_a_draft_becomes_a_notification_of_just_its_files(tmp_path: Path) -> None:
    draft = DeliveryDraft(tmp_path, {"program": 3})
    name = ProductName.parse("r00003_p_v01001001001001_f146_eventcatalog.parquet")
    write_table(draft.path(name), pd.DataFrame({"flux": np.ones(3), "name": list("abc")}))
    image = ProductInput(name="r0000301001001001001_0001_wfi01_f146_cal.asdf", sha256="1" * 64)
    stated = draft.add(name, [image], {"season": "s01"})
    draft.finish()
    sent = Notification.parse((tmp_path / NOTIFICATION).read_bytes(), "x")
    (file,) = sent.files
    assert (file.filename, file.sha256) == (stated.name, stated.sha256)
    assert file.metadata == {"program": 3, "season": "s01"}
    assert pq.read_schema(draft.path(name)).field("flux").metadata == {b"unit": b"DN / s"}


VISITS = [VisitId(3, 1, 1, 1, number, 1) for number in (1, 2)]


def manifest_of(visit: VisitId) -> HandoverManifest:
    return HandoverManifest(
        partition=f"r00003_r0_{visit.grouping}", visit=str(visit), survey=Survey.GBTDS,
        exposure_type=ExposureType.WFI_IMAGE, optical_element=OpticalElement.F146,
        digest="0" * 64, handed_over_at=datetime(2027, 1, 1, tzinfo=UTC), products=(), images=(),
        missing=(),
        release=HandedOverRelease(
            release="r0", survey=Survey.GBTDS, context="roman_0002.pmap", romancal="1.1.0",
            exposures=tuple(f"{one}_0001" for one in VISITS),
        ),
    )  # fmt: skip


def test_products_for_a_release_have_its_names_and_say_so(tmp_path: Path) -> None:
    with ArchiveReader(DataRoot(tmp_path), Role.OPERATIONS) as archive:
        work = VisitWork(manifest_of(VISITS[0]), archive, tmp_path)
        name = work.name("microlensing_light_curve_catalog", "WFI01")
        assert str(name) == f"r00003_r0_{VISITS[0].grouping}_wfi01_f146_lightcurvecatalog.parquet"
        write_table(work.draft.path(name), pd.DataFrame({"flux": np.ones(3)}))
        work.draft.add(name, [ProductInput(name="x", sha256="1" * 64)], {})
    work.draft.finish()
    (file,) = Notification.parse((tmp_path / NOTIFICATION).read_bytes(), "x").files
    assert file.metadata["msos_processing_id"] == "r0"


def test_a_visit_of_a_release_waits_for_those_before_it_that_were_handed_over(
    tmp_path: Path,
) -> None:
    root = DataRoot(tmp_path)
    first, second = map(manifest_of, VISITS)
    exchange = Exchange.of(root)

    def work_on(manifest: HandoverManifest) -> None:
        with ArchiveReader(root, Role.OPERATIONS) as archive:
            require_earlier_visits(manifest, archive, exchange)

    work_on(second)
    exchange.write(first.key, first.model_dump_json().encode())
    work_on(first)
    with pytest.raises(PassingFaultError, match=f"waits for {first.partition}"):
        work_on(second)
    events = f"{first.partition}_f146_eventcatalog.parquet"
    commit(
        root, {events: b"events"}, step=Step.RELEASE_MICROLENSING, partition=first.partition,
        access=Role.OPERATIONS,
    )  # fmt: skip
    fold(root)
    work_on(second)
