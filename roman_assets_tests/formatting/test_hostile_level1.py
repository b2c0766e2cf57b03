"""L1 files from outside that would hang, exhaust memory or read other files, were they believed."""

from __future__ import annotations

import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.errors import BadInputError
from roman_assets.formatting.asdf_guard import require_harmless
from roman_assets.formatting.landing import LandingArea
from roman_assets_tests.support.foreign_level1 import NAME, foreign_level1

HEAD = b"#ASDF 1.0.0\n#ASDF_STANDARD 1.6.0\n%YAML 1.1\n%TAG ! tag:stsci.edu:asdf/\n---\n"
LAUGHS = b"".join(
    b"l%d: &l%d [%s]\n" % (level, level, b", ".join([b"*l%d" % (level - 1)] * 10))
    for level in range(1, 12)
)
MERGES = b"".join(
    b"m%d: &m%d\n  <<: [%s]\n" % (level, level, b", ".join([b"*m%d" % (level - 1)] * 10))
    for level in range(1, 12)
)
NEST = b"n: " + b"[" * 5000 + b"]" * 5000 + b"\n"


def block(content: bytes, *, stated: int | None = None, compression: bytes = bytes(4)) -> bytes:
    size = len(content)
    header = struct.pack(">I4sQQQ", 0, compression, size, size, stated or size) + bytes(16)
    return b"\xd3BLK" + struct.pack(">H", len(header)) + header + content


def asdf_file(yaml: bytes, *blocks: bytes, after: bytes = b"") -> bytes:
    text = HEAD + b"--- !core/asdf-1.1.0\n".removeprefix(b"--- ") + yaml + b"...\n"
    return text + b"".join(blocks) + after


def array(source: str = "0", shape: str = "[3, 8, 8]", extra: str = "") -> bytes:
    return (
        "roman:\n  data: !core/ndarray-1.1.0\n"
        f"    source: {source}\n    datatype: uint16\n    byteorder: little\n"
        f"    shape: {shape}\n{extra}"
    ).encode()


PIXELS = block(bytes(3 * 8 * 8 * 2))
HOSTILE = {
    "aliases that stand for billions of values": asdf_file(b"l0: &l0 [a, b]\n" + LAUGHS),
    "merges that stand for billions of keys": asdf_file(b"m0: &m0 {a: 1}\n" + MERGES),
    "thousands of levels": asdf_file(NEST),
    "no end of the text": HEAD + b"a" * (9 << 20),
    "an array in another file": asdf_file(array("'file:///etc/passwd'"), PIXELS),
    "an external array": asdf_file(b"a: !core/externalarray-1.0.0 {fileuri: /etc/passwd}\n"),
    "a reference to another file": asdf_file(b"a: {$ref: 'file:///etc/passwd#/a'}\n"),
    "an object of Python": asdf_file(b"a: !<tag:yaml.org,2002:python/object:os.system> {}\n"),
    "a tag of nobody": asdf_file(b"a: !<asdf://example.com/tags/thing-1.0.0> {}\n"),
    "an array larger than its block": asdf_file(array(shape="[1000000, 1000, 1000]"), PIXELS),
    "an array that repeats one pixel": asdf_file(
        array(shape="[100000, 100000]", extra="    strides: [0, 0]\n"), PIXELS
    ),
    "an array of no block": asdf_file(array("7"), PIXELS),
    "a streamed array": asdf_file(array("-1", "['*', 8, 8]"), PIXELS),
    "a block that swells": asdf_file(
        array(), block(b"x" * 99, stated=1 << 50, compression=b"zlib")
    ),
    "a block beyond the end": asdf_file(array(), PIXELS[:-100]),
    "an index of blocks that are none": asdf_file(
        array(), PIXELS, after=b"#ASDF BLOCK INDEX\n%YAML 1.1\n---\n- 17\n...\n"
    ),
    "something behind the blocks": asdf_file(array(), PIXELS, after=b"PK\x03\x04"),
    "no ASDF": b"SIMPLE  =                    T" + bytes(2880),
    "nothing": b"",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_set_aside_at_once_and_the_others_are_taken_in(tmp_path, content):
    area = LandingArea(DataRoot(tmp_path))
    (area.path / ".hostile").write_bytes(content)
    (area.path / ".hostile").rename(area.path / NAME)
    foreign_level1(area.path, NAME.replace("wfi07", "wfi08"))
    assert area.scan().taken == (NAME.replace("wfi07", "wfi08"),)
    (case,) = SetAside(area.root).list()
    assert Path(case.source).name == NAME
    assert case.field == "ASDF"
    assert "deliver it again" in case.remedy


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_refusing_a_hostile_file_takes_little_time_and_memory(tmp_path, content):
    path = tmp_path / NAME
    path.write_bytes(content)
    tracemalloc.start()
    begun = time.process_time()
    try:
        with pytest.raises(BadInputError):
            require_harmless(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < 10
    assert peak < 300 << 20


def test_a_file_that_romanisim_or_the_platform_writes_is_harmless(tmp_path):
    require_harmless(foreign_level1(tmp_path))
