"""Time what a new CRDS context changes among a million products, beside asking CRDS for each.

The registry holds HLWAS exposures of 18 detectors in four filters, made with two contexts over two
years, by the fold's own SQL from synthetic commit records. The new context has another photometric
conversion of one detector from one date on. Ours is `impact_of`: from opening the registry to the
name of the last product, with volume, processing time, visits that follow and deadlines. The
alternatives are given the L2 images as ours finds them, and ask CRDS for each of them:

- *affected*: as ``crds bestrefs --affected-datasets`` does: only the kinds of references in which
  the contexts differ, in both;
- *recommendations*: all references, in both, by ``crds.getrecommendations``, its public function.

They are timed on a sample and scaled to all L2 images. Their products have to be the same.

    python benchmarks/impact.py                    # 10^6 products
    python benchmarks/impact.py --products 1e5
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from usage.ratios import print_ratio

from roman_assets.data_root import DataRoot
from roman_assets.products.observation import DETECTORS, ExposureType, OpticalElement
from roman_assets.records.record import Cause, Change
from roman_assets.references.context import SERVERLESS_URL, best_references
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.compaction import merge_tiers
from roman_assets.registry.store.fold import READ_BY_FOLD
from roman_assets.registry.store.fold_lock import fold_lock
from roman_assets.registry.store.incoming import NO_RECORD, apply_incoming
from roman_assets.registry.store.new_tier import new_tier
from roman_assets.registry.store.snapshot import Snapshot, publish_snapshot
from roman_assets.registry.store.tiers import TieredDatabase
from roman_assets.reprocessing.impact import impact_of
from roman_assets.simulation.telescope.crds_cache import build_crds_cache
from roman_assets.simulation.telescope.crds_mappings import CONTEXTS
from roman_assets.simulation.telescope.reference_delivery import deliver_reference
from roman_assets.simulation.telescope.scene import SkyCircle

DETECTOR = "WFI07"
FROM = datetime(2028, 1, 1, tzinfo=UTC)
ELEMENTS = ("F106", "F129", "F158", "F184")
EXPOSURES_OF_VISIT = 4
PRODUCTS_OF_VISIT = EXPOSURES_OF_VISIT * 18 * 5 + 4 * 4
VISITS_AT_ONCE = 500
ROUNDS = 7
SAMPLE = 300

_INCOMING = f"""
create temp table incoming as
{NO_RECORD} union all by name (
with exposures as (
    select i // {EXPOSURES_OF_VISIT} as v,
        'r' || lpad((10 + v % 400)::varchar, 5, '0') || lpad((v // 400 + 1)::varchar, 2, '0')
            || '001001001001' as visit,
        visit || '_' || lpad((i % {EXPOSURES_OF_VISIT} + 1)::varchar, 4, '0') as exposure,
        {list(ELEMENTS)}[v % 4 + 1] as element,
        timestamptz '2027-01-01' + to_seconds((i * 730.0 * 86400 / $exposures)::integer) as begun,
        '{CONTEXTS[1]}' as context
    from range($low, $high) as numbers(i)
), works as (
    select exposure as "partition", w.step, begun + to_hours(w.hours) as made, visit, exposure,
        element, begun, context, unnest(range(1, 19)) as unit, w.ends
    from exposures, (values ('formatting', 10, ['uncal.asdf']), ('exposure', 30,
        ['cal.asdf', 'wcs.asdf', 'cat.parquet', 'segm.asdf'])) as w(step, hours, ends)
    union all
    select visit, 'visit', max(begun) + to_hours(60), visit, null, any_value(element), min(begun),
        any_value(context), unnest(range(50, 54)),
        ['coadd.asdf', 'asn.json', 'cat.parquet', 'segm.asdf']
    from exposures group by visit
), entries as (
    select works.* exclude (context),
        if(step = 'formatting', null, works.context) as context,
        if(step = 'visit', json_object('apcorr', chosen."references"->>'apcorr'),
            chosen."references"::json) as "references",
        if(exposure is null,
            'r' || visit[2:6] || '_p_v' || visit[7:] || '_270p65x' || works.unit || 'y50_',
            exposure || '_wfi' || lpad(works.unit::varchar, 2, '0') || '_')
            || lower(works.element) || '_' || unnest(ends) as name
    from works left join chosen on step <> 'formatting' and chosen.context = works.context
        and chosen.element = works.element and chosen.unit = if(exposure is null, 2, works.unit)
)
select md5("partition" || step) as record_id, step, "partition", any_value(made) as committed_at,
    'publication' as statement, null::varchar as run_id, list({{
        'name': name, 'sha256': sha256(name), 'size': 33000000::bigint,
        'fingerprint': sha256("partition"), 'context': context,
        'inputs': []::struct(name varchar, sha256 varchar)[],
        'software': '{{"romancal":"1.1.0","crds":"13.0.0"}}'::json,
        'references': coalesce("references", '{{}}'::json),
        'metadata': json_object('survey', 'HLWAS', 'exposure_type', 'WFI_IMAGE', 'start_time',
            begun::varchar, 'end_time', (begun + to_seconds(140))::varchar, 'nexposures',
            {EXPOSURES_OF_VISIT}),
        'archived': null::struct(rad_schema varchar, sections integer[]), 'access': 'public'}}
    ) as products,
    map {{'all_received': any_value(begun) + to_hours(8),
        'execution_end': any_value(begun) + to_seconds(140),
        'started': any_value(made) - to_seconds(120), 'finished': any_value(made)}} as events,
    {{'attempt_id': md5("partition" || step), 'outcome': 'finished', 'error': '',
        'message': '', 'last_try': false}} as attempt
from entries group by step, "partition")
"""


def build(root: DataRoot, products: int) -> None:
    """Make a registry of so many products, sorted as a merge leaves it."""
    visits = -(-products // PRODUCTS_OF_VISIT)
    with fold_lock(root, "building") as fence:
        with new_tier(root, read=READ_BY_FOLD, published=False) as tier:
            _fill(tier.database, visits)
        whole = merge_tiers(root, [tier.name], is_whole=True)
        publish_snapshot(root, Snapshot.of((whole,)), None, fence)


def _fill(database: TieredDatabase, visits: int) -> None:
    database.connection.register("chosen_references", _references())
    database.connection.execute("create temp table chosen as from chosen_references")
    for low in range(0, visits, VISITS_AT_ONCE):
        high = min(low + VISITS_AT_ONCE, visits)
        database.connection.execute(
            _INCOMING,
            {
                "low": low * EXPOSURES_OF_VISIT,
                "high": high * EXPOSURES_OF_VISIT,
                "exposures": visits * EXPOSURES_OF_VISIT,
            },
        )
        apply_incoming(database.connection)


def _references() -> pa.Table:
    """Give what CRDS chooses for every detector and filter in both contexts, as products say it."""
    rows = [
        {
            "context": context,
            "element": element,
            "unit": unit,
            "references": json.dumps(_recorded(detector, element, context)),
        }
        for context in CONTEXTS
        for element in ELEMENTS
        for unit, detector in enumerate(DETECTORS, start=1)
    ]
    return pa.Table.from_pylist(rows)


def _recorded(detector: str, element: str, context: str) -> dict[str, str]:
    found = best_references(
        detector, OpticalElement(element), ExposureType.WFI_IMAGE, FROM, context=context
    )
    return {
        kind: name
        for kind, name in found.items()
        if name != "N/A" and not kind.startswith("pars-") and kind != "skycells"
    }


def ours(root: DataRoot, change: Change) -> set[str]:
    """Give the products that would change, with all else that `impact_of` tells."""
    return set(impact_of(root, change).products["name"])


def images(root: DataRoot) -> list[dict[str, Any]]:
    """Give what CRDS needs to know of every L2 image."""
    with Registry(root) as registry, registry.snapshot.connection() as connection:
        answer = connection.execute(
            "select name, file_set, detector, optical_element, exposure_type, start_time, context "
            "from products where kind = 'cal'"
        )
        columns = [column[0] for column in answer.description]
        return [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]


def header_of(image: dict[str, Any]) -> dict[str, str]:
    """Give the parameters of an image as CRDS names them."""
    return {
        "ROMAN.META.INSTRUMENT.NAME": "WFI",
        "ROMAN.META.INSTRUMENT.DETECTOR": image["detector"],
        "ROMAN.META.INSTRUMENT.OPTICAL_ELEMENT": image["optical_element"],
        "ROMAN.META.EXPOSURE.TYPE": image["exposure_type"],
        "ROMAN.META.EXPOSURE.START_TIME": f"{image['start_time']:%Y-%m-%d %H:%M:%S}",
    }


def affected(chosen: list[dict[str, Any]], context: str) -> set[str]:
    """Compare the best references of each image as ``crds bestrefs --affected-datasets`` does."""
    from crds.core import heavy_client, rmap

    old, new = (rmap.get_cached_mapping(name) for name in (CONTEXTS[1], context))
    kinds = [
        kind for kind in new.get_imap("WFI").selections if _rule(old, kind) != _rule(new, kind)
    ]
    return {
        image["file_set"]
        for image in chosen
        if heavy_client.hv_best_references(CONTEXTS[1], header := header_of(image), include=kinds)
        != heavy_client.hv_best_references(context, header, include=kinds)
    }


def _rule(context: Any, kind: str) -> str:
    rule = context.get_imap("WFI").selections[kind]
    return rule if isinstance(rule, str) else str(rule.basename)


def recommendations(chosen: list[dict[str, Any]], context: str) -> set[str]:
    """Compare all references of each image by CRDS's public function."""
    import crds

    def ask(header: dict[str, str], name: str) -> Any:
        return crds.getrecommendations(header, context=name, observatory="roman")

    return {
        image["file_set"]
        for image in chosen
        if ask(header := header_of(image), CONTEXTS[1]) != ask(header, context)
    }


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(root: DataRoot, context: str) -> None:
    """Time ours and the alternatives, and check that they find the same."""
    change = Change(cause=Cause.CONTEXT, value=context)
    named = ours(root, change)
    times = [seconds_of(lambda: ours(root, change)) for _ in range(ROUNDS)]
    our_time = statistics.median(times)
    every = images(root)
    print(
        f"ours: {len(named):,} products named in {our_time:.2f} s "
        f"(from {min(times):.2f} to {max(times):.2f})"
    )
    require_same(named, every)
    sample = random.Random(1).sample(every, SAMPLE)
    for name, work in (("affected", affected), ("recommendations", recommendations)):
        work(sample[:1], context)
        found: set[str] = set()
        taken = seconds_of(lambda work=work, found=found: found.update(work(sample, context)))
        scaled = taken / SAMPLE * len(every)
        ours_of_sample = {one["file_set"] for one in sample if one["name"] in named}
        if found != ours_of_sample:
            raise SystemExit(f"{name} finds {len(found)} images, ours {len(ours_of_sample)}")
        print(f"{name}: {taken / SAMPLE * 1e3:.2f} ms an image, {scaled:.0f} s for all")
        print_ratio(f"impact_{name}", scaled / our_time)
    print_ratio("impact_within_2s", 2 / our_time)


def require_same(named: set[str], every: list[dict[str, Any]]) -> None:
    """Check that just the products of the detector from the date on are named."""
    expected = {
        one["file_set"]
        for one in every
        if one["detector"] == DETECTOR and one["start_time"] >= FROM
    }
    found = {name.rpartition("_")[0] for name in named}
    if found != expected or len(named) != 4 * len(expected):
        raise SystemExit(f"{len(found)} file sets are named, {len(expected)} are affected")
    print(f"exactly the {len(expected):,} file sets of {DETECTOR} from {FROM:%Y-%m-%d} on")


def main() -> None:
    """Parse the command line, build and measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--products", type=float, default=1e6, help="size of the registry")
    parser.add_argument("--work", type=Path, help="a directory for the data, removed afterwards")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        cache = Path(work) / "crds"
        build_crds_cache(
            cache,
            optical_elements=[OpticalElement.DARK],
            window=64,
            sky_fields=[SkyCircle(270.0, 66.0, 0.02)],
        )
        os.environ |= {
            "CRDS_PATH": str(cache),
            "CRDS_SERVER_URL": SERVERLESS_URL,
            "CRDS_OBSERVATORY": "roman",
            "CRDS_READONLY_CACHE": "1",
        }
        os.environ.pop("CRDS_CONTEXT", None)
        root = DataRoot(Path(work) / "data")
        taken = seconds_of(lambda: build(root, int(options.products)))
        print(f"{options.products:,.0f} products built in {taken:.0f} s", flush=True)
        context = deliver_reference(cache, "photom", DETECTOR, use_after=FROM)
        measure(root, context)


if __name__ == "__main__":
    main()
