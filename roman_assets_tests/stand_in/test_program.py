from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from roman_assets.errors import BadInputError
from roman_assets.pipelines.ssc.command import MANIFEST_VARIABLE
from roman_assets.pipelines.ssc.notification import NOTIFICATION, Notification
from roman_assets.products.name import ProductName
from roman_assets.registry.record import ProductInput
from roman_assets.stand_in.draft import DeliveryDraft, write_table
from roman_assets.stand_in.program import run


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
