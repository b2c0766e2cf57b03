import pytest

from roman_assets.archive.set_aside import SetAside
from roman_assets.data_root import DataRoot
from roman_assets.records.journal import Journal
from roman_assets.registry.registry import Registry
from roman_assets.registry.store.fold import fold
from roman_assets_tests.support.small_products import cal, moment, record_of


@pytest.fixture
def root(tmp_path):
    return DataRoot(tmp_path)


def truncated(line: bytes) -> bytes:
    return line[: len(line) // 2]


def emptied(line: bytes) -> bytes:
    return b""


def with_a_flipped_bit(line: bytes) -> bytes:
    place = line.index(b'"size":') + len(b'"size":')
    return line[:place] + bytes([line[place] ^ 1]) + line[place + 1 :]


def of_another_program(line: bytes) -> bytes:
    return b"\x00\xff not JSON \n{}"


DAMAGES = [truncated, emptied, with_a_flipped_bit, of_another_program]


def test_a_record_is_read_as_it_was_written(root):
    record = record_of(root, {cal(): b"a"})
    journal = Journal(root)
    journal.write(record)
    pending, damage = journal.read_pending(journal.pending_paths())
    assert [item.record for item in pending] == [record]
    assert not damage


def test_records_are_read_in_the_order_of_commit(root):
    journal = Journal(root)
    for seconds in (0.2, 0, 10, 0.1):
        journal.write(record_of(root, {}, committed_at=moment(seconds)))
    pending, _ = journal.read_pending(journal.pending_paths())
    assert [item.record.committed_at for item in pending] == [
        moment(seconds) for seconds in (0, 0.1, 0.2, 10)
    ]


def test_a_prepared_record_is_not_true_before_it_is_committed(root):
    journal = Journal(root)
    prepared = journal.prepare(record_of(root, {cal(): b"a"}))
    assert not journal.pending_paths()
    assert not list(journal.records())
    journal.commit(prepared)
    assert len(list(journal.records())) == 1


def test_a_record_with_an_unofficial_name_is_refused(root):
    with pytest.raises(ValueError, match="not an official product name"):
        Journal(root).write(record_of(root, {"passwd": b"a"}))
    assert not Journal(root).pending_paths()


@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_damaged_pending_record_is_named_and_stops_nothing_else(root, damaged):
    journal = Journal(root)
    journal.write(record_of(root, {cal(1): b"a"}))
    (victim,) = journal.pending_paths()
    content = damaged(victim.read_bytes())
    victim.write_bytes(content)
    journal.write(record_of(root, {cal(2): b"b"}))

    report = fold(root)

    (case,) = SetAside(root).list()
    assert report.records == 1
    assert report.damaged == (case.path,)
    assert case.source == str(victim)
    assert case.content is not None
    assert case.content.read_bytes() == content
    assert not journal.pending_paths()
    assert list(Registry(root).products.find()["name"]) == [cal(2)]


def test_segments_are_merged_without_losing_a_record(root):
    journal = Journal(root)
    written = []
    for number in range(70):
        record = record_of(root, {}, committed_at=moment(number))
        journal.write(record)
        pending, _ = journal.read_pending(journal.pending_paths())
        journal.seal(pending)
        journal.discard(pending)
        journal.merge_segments()
        written.append(record.record_id)
    assert len(journal.segments()) < 10
    assert sorted(record.record_id for record in journal.records()) == sorted(written)
