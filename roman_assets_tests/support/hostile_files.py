"""Files that cannot be used, made from good ones."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class GoodFiles:
    """One good file of each kind, to be spoiled.

    Parameters
    ----------
    packets
        The beginning of a packet file, of less than two packets.
    visit, ma_table
        Documents of a visit and an MA table that nobody uses.
    ephemeris
        An orbit ephemeris message.
    """

    packets: bytes
    visit: Mapping[str, Any]
    ma_table: Mapping[str, Any]
    ephemeris: str


Spoil = Callable[[GoodFiles, random.Random], bytes]


def _noise(good: GoodFiles, dice: random.Random) -> bytes:
    return dice.randbytes(dice.randrange(1, 100_000))


def _flipped(good: GoodFiles, dice: random.Random) -> bytes:
    content = bytearray(good.packets)
    for start in range(0, len(content), 32):
        content[min(start + dice.randrange(32), len(content) - 1)] ^= 1 << dice.randrange(8)
    return bytes(content)


def _visit(**changes: Any) -> Spoil:
    return lambda good, dice: json.dumps({**good.visit, **changes}).encode()


def _ma_table(**changes: Any) -> Spoil:
    return lambda good, dice: json.dumps({**good.ma_table, **changes}).encode()


def _ephemeris(old: str, new: str) -> Spoil:
    def spoil(good: GoodFiles, dice: random.Random) -> bytes:
        lines = [new if line.startswith(old) else line for line in good.ephemeris.splitlines()]
        return "\n".join(lines).encode()

    return spoil


SPOILED: Mapping[str, Spoil] = {
    "noise.l0": _noise,
    "empty.l0": lambda good, dice: b"",
    "flipped.l0": _flipped,
    "cut.l0": lambda good, dice: good.packets[: dice.randrange(1, 60)],
    "no_json.json": lambda good, dice: b"<html>404</html>",
    "cut.json": lambda good, dice: json.dumps(good.visit).encode()[: dice.randrange(1, 900)],
    "deep.json": lambda good, dice: b"[" * 100_000,
    "latin.json": lambda good, dice: json.dumps(good.visit).encode() + b"\xff\xfe",
    "unknown_field.json": _visit(colour="blue"),
    "huge_revision.json": _visit(revision=2**63),
    "year_one.json": _visit(start_time="0001-01-01T00:00:00+14:00"),
    "too_many.json": _visit(nexposures=10**6),
    "no_element.json": _visit(optical_element="F999"),
    "nan.json": _ma_table(frame_time=float("nan")),
    "negative.json": _ma_table(number=-1),
    "empty_pattern.json": _ma_table(read_pattern=[[]]),
    "header_only.oem": lambda good, dice: good.ephemeris[:60].encode(),
    "leap_second.oem": _ephemeris("CREATION_DATE", "CREATION_DATE = 2016-12-31T23:59:60"),
    "other_craft.oem": _ephemeris("OBJECT_NAME", "OBJECT_NAME = ISS"),
    "unknown.txt": lambda good, dice: b"a note",
    f"{'long' * 50}.l0": _noise,
}
"""How a file is spoiled, by the end of its name."""

LINKED = "loop"
NOT_UTF8 = "not_utf8.l0"
KINDS = (*SPOILED, LINKED, NOT_UTF8)


def drop(landing: Path, number: int, good: GoodFiles, dice: random.Random) -> str:
    """Put a file into the landing area that cannot be used; return how its name begins."""
    begin = f"bad{number:04d}_"
    kind = KINDS[number % len(KINDS)]
    if kind == LINKED:
        (landing / f"{begin}{kind}").symlink_to(".")
        return begin
    name = f"{begin}{kind}"
    if kind == NOT_UTF8:
        name = os.fsdecode(name.encode().replace(b"not", b"n\xfft"))
    content = SPOILED.get(kind, _noise)(good, dice)
    draft = landing / f".{begin}"
    draft.write_bytes(content)
    draft.rename(landing / name)
    return begin
