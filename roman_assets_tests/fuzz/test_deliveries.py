"""Door: the exchange with the SSC, with object keys and trees of files of any kind."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from roman_assets.errors import BadInputError
from roman_assets.ssc.delivery import PATIENCE, Exchanged, strays
from roman_assets.ssc.exchange import (
    DEEPEST,
    FROM_SSC,
    DirectoryExchange,
    Exchange,
    ObjectExchange,
)
from roman_assets.ssc.notification import NOTIFICATION
from roman_assets_tests.support.s3_server import put_object

LATE = datetime.now(UTC) + 2 * PATIENCE
KEYS = st.text(
    st.sampled_from("/.aA-_%+~?#&<> \\'\"\x01\x7f\x85\u2028ü😀"), min_size=1, max_size=12
)
PARTS = st.sampled_from([b"D", b"E", os.fsencode(NOTIFICATION)]) | st.binary(
    min_size=1, max_size=255
).filter(lambda name: not {*b"/\0"} & {*name} and name not in (b".", b".."))
TREES = st.lists(
    st.tuples(
        st.lists(PARTS, min_size=1, max_size=DEEPEST),
        st.sampled_from([Path.touch, os.mkfifo, Path.mkdir, lambda path: path.symlink_to("..")]),
    ),
    max_size=6,
)


def settle(exchange: Exchange) -> set[str]:
    """Look, and reject every delivery; return all files that were seen, as the exchange has them.

    Afterwards, only what belongs to no delivery is there.
    """
    seen, left = Exchanged.look(exchange, LATE), strays(exchange)
    assert (seen.arriving, len(seen.stuck)) == ((), len(left))
    for delivery in seen.whole:
        with tempfile.TemporaryDirectory() as directory:
            copies, faults = delivery.fetch(Path(directory))
            assert faults == []
            direct = [file for file in delivery.files if file.key.parent == delivery.place]
            assert copies.keys() == {file.key.name for file in direct if not file.obstacle}
        with suppress(BadInputError):
            delivery.address()
            raise AssertionError("there is no valid notification")
        delivery.remove()
    assert Exchanged.look(exchange, LATE).whole == ()
    assert strays(exchange) == left
    return {file.raw for file in left}.union(*({f.raw for f in one.files} for one in seen.whole))


@example(["/x", "D//a", "D/../b", "./b", "D/\x01", "D/\x85", "D/%2E", "D/."])
@given(st.lists(KEYS, max_size=4))
def test_every_object_is_of_a_delivery_and_can_be_removed_or_is_named(
    object_store: str, keys: Sequence[str]
) -> None:
    place = f"{object_store}/{uuid.uuid4().hex}"
    written = {f"from_ssc/{key}" for key in ("D/a", *keys)}
    for key in written:
        put_object(place, key, b"" if key.endswith("/") else b"x")
    exchange = ObjectExchange(place)
    assert settle(exchange) == {key for key in written if not key.endswith("/")}


@given(TREES)
def test_every_file_is_of_a_delivery_and_can_be_removed_or_is_named(
    tree: Sequence[tuple[Sequence[bytes], Callable[[Path], None]]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        top = Path(directory, FROM_SSC)
        (top / "D").mkdir(parents=True)
        (top / "D" / "a").touch()
        for parts, make in tree:
            path = top.joinpath(*map(os.fsdecode, parts))
            with suppress(OSError):  # the name is taken
                path.parent.mkdir(parents=True, exist_ok=True)
                make(path)
        found = settle(DirectoryExchange(Path(directory)))
        assert f"{FROM_SSC}/D/a" in found
