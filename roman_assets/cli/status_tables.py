"""Tables for operators: what is made of exposures and visits, when, and against which deadline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from roman_assets.archive.set_aside import SetAside, SetAsideCase
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.landing import LandingArea
from roman_assets.formatting.receipt import Receipt
from roman_assets.products.kind import (
    KINDS,
    VISIT_STEPS,
    Level,
    ProductKind,
    Scope,
    Step,
    expected_kinds,
)
from roman_assets.products.observation import VisitId
from roman_assets.registry.registry import Registry
from roman_assets.ssc.delivery import Exchanged
from roman_assets.ssc.exchange import Exchange

_EXPOSURE_STEPS = (Step.FORMATTING, Step.EXPOSURE, Step.SPECTRA)
_NOT_EXPECTED = "-"


def status_tables(root: DataRoot) -> Iterator[Table]:
    """Yield tables of exposures and visits with what is made level by level, and of what is wrong.

    A cell says how many products there are of how many expected; skycells are known only once a
    visit has been co-added, so L3 is counted without.
    """
    landing = LandingArea(root)
    landing.scan()
    receipts = landing.receipts()
    with Registry(root) as registry:
        counts = _counts(registry)
        yield _exposure_table(receipts, counts, registry.work.failures())
        yield _visit_table(receipts, counts)
        unfit = registry.archive.unfit_values()
    if not unfit.empty:
        yield _unfit_table(unfit)
    if left := landing.left():
        yield _left_table(left)
    if stuck := Exchanged.look(Exchange.of(root), datetime.now(UTC)).stuck:
        yield _stuck_table(stuck)
    if cases := SetAside(root).list():
        yield _set_aside_table(cases)


def _unfit_table(unfit: pd.DataFrame) -> Table:
    """Return the metadata that columns of the registry cannot hold, with the newest of each."""
    table = Table(
        "table", "column", "type", "products", "product", "says", title="Metadata that do not fit"
    )
    for (name, column, datatype), group in unfit.groupby(
        ["table_name", "column_name", "datatype"], sort=True
    ):
        example = group.iloc[-1]
        says = example["value"] if len(example["value"]) <= 40 else f"{example['value'][:40]}..."
        table.add_row(
            str(name), str(column), str(datatype), str(len(group)), example["name"], escape(says)
        )
    return table


def made_table(root: DataRoot, visits: Iterable[VisitId]) -> Table:
    """Return what was made of some visits, when, and against which deadline.

    Times and margins are the ledger's.
    """
    table = Table(
        "made for", "survey", "element", "level", "kinds", "products", "size", "made (UTC)",
        "due (UTC)", "margin",
    )  # fmt: skip
    with Registry(root) as registry:
        for visit in visits:
            ledger = registry.deadlines.groups(visit=str(visit))
            made = ledger[ledger["made"].notna()].merge(_sizes(registry, visit), "left")
            for key, group in made.groupby(["partition", "level", "made"], sort=True):
                table.add_row(*_made_cells(str(key[0]), str(key[1]), group))
            table.add_section()
    return table


def _sizes(registry: Registry, visit: VisitId) -> pd.DataFrame:
    """Return the bytes of a visit's products by the record that made them and their kind."""
    found = registry.products.find(visit=str(visit), overwritten=True)
    return found.groupby(["record_id", "kind"])[["size"]].sum().reset_index()


def _counts(registry: Registry) -> Mapping[tuple[str, str], int]:
    """Return the number of current products by partition and level, without pictures."""
    frame = registry.products.counts(by=("partition", "level", "kind"))
    promised = frame[~frame["kind"].isin([kind.name for kind in KINDS if kind.picture])]
    counts = promised.groupby(["partition", "level"], as_index=False)["products"].sum()
    return {
        (partition, level): int(products)
        for partition, level, products in zip(
            counts["partition"], counts["level"], counts["products"], strict=True
        )
    }


def _exposure_table(
    receipts: Iterable[Receipt], counts: Mapping[tuple[str, str], int], failures: pd.DataFrame
) -> Table:
    table = Table(
        "exposure", "survey", "element", "detectors", "received", "L1", "L2", "L4", "failed",
        title="Exposures",
    )  # fmt: skip
    failed = failures.groupby("partition")["file_set"].nunique()
    for receipt in receipts:
        key = str(receipt.exposure)
        table.add_row(
            key,
            receipt.survey or "?",
            receipt.optical_element or "?",
            str(len(receipt.detectors)),
            "complete" if receipt.complete else f"missing {len(receipt.missing)}",
            *(
                _progress(counts.get((key, level), 0), _expected(receipt, level))
                for level in (Level.L1, Level.L2, Level.L4)
            ),
            str(failed.get(key, 0)),
        )
    return table


def _visit_table(receipts: Iterable[Receipt], counts: Mapping[tuple[str, str], int]) -> Table:
    table = Table("visit", "survey", "element", "exposures", "L2", "L3", "L4", title="Visits")
    by_visit: dict[VisitId, list[Receipt]] = {}
    for receipt in receipts:
        by_visit.setdefault(receipt.exposure.visit, []).append(receipt)
    for visit, members in by_visit.items():
        first = members[0]
        complete = sum(receipt.complete for receipt in members)
        images = sum(counts.get((str(receipt.exposure), Level.L2), 0) for receipt in members)
        expected = {kind.level for kind in _kinds(first, tuple(VISIT_STEPS))}
        table.add_row(
            str(visit),
            first.survey or "?",
            first.optical_element or "?",
            _progress(complete, first.nexposures),
            str(images),
            *(
                str(counts.get((str(visit), level), 0)) if level in expected else _NOT_EXPECTED
                for level in (Level.L3, Level.L4)
            ),
        )
    return table


def _set_aside_table(cases: Iterable[SetAsideCase]) -> Table:
    table = Table("when (UTC)", "source", "field", "reason", "remedy", title="Set aside")
    for case in cases:
        table.add_row(
            f"{case.when:%Y-%m-%d %H:%M:%S}",
            escape(Path(case.source).name),
            escape(case.field),
            escape(case.reason),
            escape(case.remedy),
        )
    return table


def _left_table(faults: Iterable[BadInputError]) -> Table:
    table = Table("source", "field", "reason", "remedy", title="Unusable in the landing area")
    for fault in faults:
        table.add_row(
            escape(fault.source), escape(fault.field), escape(fault.reason), escape(fault.remedy)
        )
    return table


def _stuck_table(stuck: Iterable[BadInputError]) -> Table:
    table = Table("source", "reason", "remedy", title="Stuck in the exchange with the SSC")
    for fault in stuck:
        table.add_row(*map(escape, (fault.source, fault.reason, fault.remedy)))
    return table


def _kinds(receipt: Receipt, steps: tuple[Step, ...]) -> tuple[ProductKind, ...]:
    if receipt.survey is None or receipt.exposure_type is None:
        return ()
    return expected_kinds(receipt.survey, receipt.exposure_type, steps, receipt.origin)


def _expected(receipt: Receipt, level: Level) -> int | None:
    """Return how many products of a level an exposure has in the end, None if not known yet."""
    if not receipt.detectors:
        return None
    return sum(
        len(receipt.detectors) if kind.scope is Scope.DETECTOR else 1
        for kind in _kinds(receipt, _EXPOSURE_STEPS)
        if kind.level is level
    )


def _progress(done: int, expected: int | None) -> str:
    if expected == 0:
        return _NOT_EXPECTED
    return f"{done}/{'?' if expected is None else expected}"


def _made_cells(partition: str, level: str, group: pd.DataFrame) -> Iterator[str]:
    made, due = group["made"].max(), group["due"].min()
    known = not pd.isna(due)
    yield partition
    yield str(group["survey"].iloc[0])
    yield str(group["optical_element"].iloc[0])
    yield level
    yield ", ".join(sorted(group["kind"].unique()))
    yield str(int(group["products"].sum()))
    yield decimal(int(group["size"].sum()))
    yield f"{made:%m-%d %H:%M:%S}"
    yield f"{due:%m-%d %H:%M:%S}" if known else "unknown"
    yield _margin(due - made) if known else "unknown"


def _margin(margin: timedelta) -> str:
    hours = margin.total_seconds() / 3600
    return f"[green]{hours:.1f} h[/green]" if hours >= 0 else f"[red]{-hours:.1f} h late[/red]"
