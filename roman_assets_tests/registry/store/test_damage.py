"""Damage in a hundred places: each is named and set aside, nothing else stops, all is mended."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from roman_assets.access import Role
from roman_assets.archive.file_archive import FileArchive
from roman_assets.archive.set_aside import SetAside, SetAsideCase
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError, PassingFaultError
from roman_assets.products.name import ProductName
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.search.finding import Finding, FindingKind
from roman_assets.registry.store.fold import fold
from roman_assets.upkeep.fsck import fsck
from roman_assets_tests.support.small_products import (
    cal,
    moment,
    public_content,
    publish_skycells,
    record_of,
    skycell_set,
)

Damage = Callable[[bytes], bytes]


def flipped(place: float, bit: int) -> Damage:
    """Flip one bit."""

    def damage(content: bytes) -> bytes:
        at = min(int(place * len(content)), len(content) - 1)
        harmed = bytearray(content)
        harmed[at] ^= 1 << bit
        return bytes(harmed)

    return damage


def cut(place: float) -> Damage:
    """Leave only the beginning."""
    return lambda content: content[: int(place * len(content))]


def foreign(content: bytes) -> bytes:
    """Put something else of the same size there."""
    return random.Random(len(content)).randbytes(len(content)).translate(_NO_LINE_ENDS)


_NO_LINE_ENDS = bytes(0 if byte in b"\r\n" else byte for byte in range(256))
_choice = random.Random(20_270_601)
DAMAGES: list[Damage] = [
    *(flipped(place, 0) for place in (0, 1)),
    *(flipped(_choice.random(), _choice.choice([0, 1, 4, 5, 6])) for _ in range(14)),
    *(cut(place) for place in (0, 0.01, 0.3, 0.6, 0.9, 0.99)),
    foreign,
]
FEWER = DAMAGES[::2]
PLACES = {"pending": DAMAGES, "segment": DAMAGES, "blob": DAMAGES, "name": FEWER, "case": FEWER}
TO_MAKE_AGAIN = ("pending", "segment", "blob")
CASES = [(place, number) for place, damages in PLACES.items() for number in range(len(damages))]
DETECTORS = {place: number for number, place in enumerate(PLACES, start=1)}


def victim(place: str, number: int) -> str:
    return cal(number + 1, DETECTORS[place])


def text_of(name: str) -> bytes:
    return f"the content of {name}".encode() * 5


@dataclass
class Harmed:
    """An installation that was damaged everywhere at once, and what came of it."""

    root: DataRoot
    harmed: dict[tuple[str, int], bytes] = field(default_factory=dict)
    subjects: dict[tuple[str, int], str] = field(default_factory=dict)
    healthy: set[str] = field(default_factory=set)
    shown: dict[str, bytes] = field(default_factory=dict)
    found: list[Finding] = field(default_factory=list)
    aside: tuple[SetAsideCase, ...] = ()
    left: list[Finding] = field(default_factory=list)
    finally_shown: dict[str, bytes] = field(default_factory=dict)

    def commit(self, names: list[str]) -> None:
        for number, name in enumerate(names):
            record = record_of(self.root, {name: text_of(name)}, committed_at=moment(number))
            Journal(self.root).write(record)

    def harm(self, place: str, number: int, content: bytes) -> bytes:
        damaged = PLACES[place][number](content)
        assert damaged != content
        self.harmed[place, number] = damaged
        return damaged


@pytest.fixture(scope="module")
def harmed(tmp_path_factory) -> Harmed:
    harmed = Harmed(DataRoot(tmp_path_factory.mktemp("data")))
    build(harmed)
    for harm in (harm_segment, harm_blobs, harm_names, harm_cases, harm_pending):
        harm(harmed)

    publish_skycells(harmed.root, {1: "goes on"})
    harmed.shown = public_content(harmed.root)
    harmed.found = fsck(harmed.root)
    fsck(harmed.root, mend=True)
    harmed.aside = SetAside(harmed.root).list()
    for place, number in CASES:
        if place in TO_MAKE_AGAIN:
            name = victim(place, number)
            Journal(harmed.root).write(record_of(harmed.root, {name: text_of(name)}))
    fold(harmed.root)
    harmed.left = fsck(harmed.root)
    harmed.finally_shown = public_content(harmed.root)
    return harmed


def build(harmed: Harmed) -> None:
    folded = [victim(place, n) for place, n in CASES if place in ("segment", "blob", "name")]
    beside = [cal(number, 9) for number in range(1, len(folded) + 1)]
    harmed.healthy = {*beside, *skycell_set(1)}
    harmed.commit([name for pair in zip(folded, beside, strict=True) for name in pair])
    fold(harmed.root)


def harm_segment(harmed: Harmed) -> None:
    (segment,) = Journal(harmed.root).segments()
    lines = segment.read_bytes().splitlines()
    for number in range(len(PLACES["segment"])):
        (at,) = (i for i, line in enumerate(lines) if victim("segment", number).encode() in line)
        lines[at] = harmed.harm("segment", number, lines[at])
        harmed.subjects["segment", number] = f"{segment}:{at + 1}"
    segment.write_bytes(b"".join(line + b"\n" for line in lines))


def harm_blobs(harmed: Harmed) -> None:
    entries = Registry(harmed.root).generations.current(
        victim("blob", n) for n in range(len(PLACES["blob"]))
    )
    for number in range(len(PLACES["blob"])):
        name = victim("blob", number)
        blob = FileArchive(harmed.root).blob(entries[name].sha256)
        blob.chmod(0o644)
        blob.write_bytes(harmed.harm("blob", number, blob.read_bytes()))
        harmed.subjects["blob", number] = name


def harm_names(harmed: Harmed) -> None:
    for number in range(len(PLACES["name"])):
        name = victim("name", number)
        path = FileArchive(harmed.root).path(ProductName.parse(name))
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(harmed.harm("name", number, content))
        harmed.subjects["name", number] = name


def harm_cases(harmed: Harmed) -> None:
    error = BadInputError("contact.l0", "packets", "no packet in it", "send it again")
    for number in range(len(PLACES["case"])):
        case = SetAside(harmed.root).add(b"noise", error)
        statement = case / "case.json"
        statement.write_bytes(harmed.harm("case", number, statement.read_bytes()))
        harmed.subjects["case", number] = str(case)


def harm_pending(harmed: Harmed) -> None:
    harmed.commit([victim("pending", number) for number in range(len(PLACES["pending"]))])
    for number, path in enumerate(Journal(harmed.root).pending_paths()):
        path.write_bytes(harmed.harm("pending", number, path.read_bytes()))
        harmed.subjects["pending", number] = str(path)


KINDS = {
    "segment": FindingKind.DAMAGED_RECORD,
    "blob": FindingKind.WRONG_BLOB,
    "name": FindingKind.WRONG_PUBLIC_NAME,
    "case": FindingKind.DAMAGED_CASE,
}


def test_there_are_a_hundred_cases():
    assert len(CASES) + len(REGISTRY_CASES) >= 100


@pytest.mark.parametrize(("place", "number"), CASES)
def test_damage_is_named(harmed, place, number):
    subject = harmed.subjects[place, number]
    if place == "pending":
        # The first fold has set it aside already.
        assert subject in {case.source for case in harmed.aside}
    elif place == "case":
        (case,) = (case for case in harmed.aside if str(case.path) == subject)
        assert case.content.read_bytes() == b"noise"
        named = [one for one in harmed.found if one.subject == subject]
        # A changed letter of a reason leaves a reason.
        assert named or case.field == "packets"
    else:
        (finding,) = (one for one in harmed.found if one.subject == subject)
        assert finding.kind is KINDS[place]
        assert finding.remedy


@pytest.mark.parametrize(("place", "number"), CASES)
def test_what_was_damaged_is_set_aside_as_it_was_found_and_can_be_made_again(harmed, place, number):
    if place in TO_MAKE_AGAIN:
        contents = [case.content.read_bytes() for case in harmed.aside if case.content]
        assert harmed.harmed[place, number] in contents
    if place != "case":
        name = victim(place, number)
        assert harmed.finally_shown[name] == text_of(name)


def test_nothing_else_stops_and_all_is_well_in_the_end(harmed):
    assert harmed.healthy <= harmed.shown.keys()
    assert harmed.left == []
    assert set(Registry(harmed.root).products.find()["name"]) == harmed.finally_shown.keys()


def registry_files(root: DataRoot) -> list[Path]:
    """Give the files that readers of the registry open, of both roles."""
    return sorted(
        path
        for directory in (root.registry, root.public_registry)
        for path in directory.rglob("*")
        if path.is_file() and path.suffix in (".duckdb", ".json") and "records" not in path.parts
    )


REGISTRY_DAMAGES: list[Damage] = [cut(0), cut(0.5), foreign, flipped(0.6, 3)]
REGISTRY_CASES = [(role, number) for role in Role for number in range(len(REGISTRY_DAMAGES))]


@pytest.mark.parametrize(("role", "number"), REGISTRY_CASES)
def test_a_damaged_registry_answers_rightly_or_says_so_and_is_made_again(tmp_path, role, number):
    root = DataRoot(tmp_path)
    Journal(root).write(record_of(root, {cal(number): text_of(cal(number)) for number in (1, 2)}))
    fold(root)
    directory = root.registry if role is Role.OPERATIONS else root.public_registry
    for path in registry_files(root):
        if path.is_relative_to(directory):
            harmed = REGISTRY_DAMAGES[number](path.read_bytes())
            path.unlink()
            path.write_bytes(harmed)

    try:
        assert list(Registry(root, role).products.find()["name"]) == [cal(1), cal(2)]
    except PassingFaultError as error:
        assert "Remedy" in str(error)
        assert FindingKind.DAMAGED_REGISTRY in {finding.kind for finding in fsck(root)}
    fsck(root, mend=True)
    assert fsck(root) == []
    assert list(Registry(root, role).products.find()["name"]) == [cal(1), cal(2)]
