"""What ``roman-assets status`` tells an operator beside what is made."""

from rich.console import Console

from roman_assets.cli.status_tables import status_tables
from roman_assets.data_root import SSC_VARIABLE, DataRoot
from roman_assets.records.journal import Journal
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.s3_server import put_object
from roman_assets_tests.support.small_products import archived, cal, record_of


def printed(root):
    console = Console(width=200)
    with console.capture() as capture:
        for table in status_tables(root):
            console.print(table)
    return capture.get()


def test_metadata_that_do_not_fit_are_shown_with_an_example(tmp_path):
    root = DataRoot(tmp_path)
    said = {"instrument.detector": "WFI[01]" * 9, "exposure.nresultants": 9}
    names = {cal(1, 1): b"1", cal(1, 2): b"2"}
    Journal(root).write(record_of(root, names, **archived("wfi_image", said)))
    fold(root)
    (line,) = [line for line in printed(root).splitlines() if "nvarchar" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[:4] == ["WFIExposure", "detector", "nvarchar(16)", "2"]
    assert cells[4] in names
    assert cells[5].startswith("WFI[01]WFI[01]")


def test_nothing_is_said_of_metadata_that_fit(tmp_path):
    root = DataRoot(tmp_path)
    said = {"instrument.detector": "WFI01"}
    Journal(root).write(record_of(root, {cal(): b"1"}, **archived("wfi_image", said)))
    fold(root)
    assert "not fit" not in printed(root)


def test_an_object_that_nothing_can_be_done_with_is_named_by_its_key(
    tmp_path, object_store, monkeypatch
):
    monkeypatch.setenv(SSC_VARIABLE, object_store)
    root = DataRoot(tmp_path)
    fold(root)
    put_object(object_store, "from_ssc/first/a")
    put_object(object_store, "from_ssc//x")
    (line,) = [line for line in printed(root).splitlines() if "belongs to no delivery" in line]
    assert "'from_ssc//x'" in line
