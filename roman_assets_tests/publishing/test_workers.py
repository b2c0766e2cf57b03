import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from roman_assets.errors import BadInputError, PassingFaultError, PlatformError
from roman_assets.publishing import workers
from roman_assets.publishing.workers import WORKERS_VARIABLE, WorkerPool, worker_count


def _warmth(_: int) -> dict[str, int | float | bool]:
    begun = time.perf_counter()
    from roman_assets import preload

    return {
        "worker": os.getpid(),
        "loaded_by": preload.LOADED_BY,
        "frozen": gc.get_freeze_count(),
        "import_seconds": time.perf_counter() - begun,
        "romancal": "romancal.pipeline.exposure_pipeline" in sys.modules,
    }


def _setting(name: str) -> str | None:
    return os.environ.get(name)


def _die_on(key: str) -> str:
    if key == "b":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return key.upper()


def _reject(key: str) -> str:
    raise BadInputError(key, "meta.filename", "it is empty", "format it again")


def _exit(_: str) -> None:
    sys.exit(-1)


def _process_id(_: int) -> int:
    return os.getpid()


@pytest.fixture(scope="module")
def pool():
    with WorkerPool(2, {"CRDS_CONTEXT": "roman_0007.pmap"}) as pool:
        yield pool


def _values(completions) -> dict:
    return {completion.key: completion.value for completion in completions}


def test_romancal_is_loaded_once_for_all_workers(pool):
    facts = list(_values(pool.run(_warmth, {str(n): n for n in range(8)})).values())
    assert len({fact["worker"] for fact in facts}) == 2
    loaders = {fact["loaded_by"] for fact in facts}
    assert len(loaders) == 1
    assert loaders.isdisjoint({fact["worker"] for fact in facts} | {os.getpid()})
    assert all(fact["romancal"] for fact in facts)
    assert max(fact["import_seconds"] for fact in facts) < 1.0


def test_the_collector_passes_over_what_was_loaded_before(pool):
    (fact,) = _values(pool.run(_warmth, {"one": 1})).values()
    assert fact["frozen"] > 100_000


def test_a_second_pool_is_warm_at_once(pool):
    list(pool.run(_process_id, {"first": 1}))
    begun = time.perf_counter()
    with WorkerPool(1) as second:
        list(second.run(_process_id, {"one": 1}))
    assert time.perf_counter() - begun < 1.5


def test_settings_reach_the_workers(pool):
    names = ("CRDS_CONTEXT", "OMP_NUM_THREADS")
    assert _values(pool.run(_setting, {name: name for name in names})) == {
        "CRDS_CONTEXT": "roman_0007.pmap",
        "OMP_NUM_THREADS": "1",
    }


def test_a_killed_worker_costs_only_the_task_it_had_in_hand():
    with WorkerPool(2) as pool:
        completions = {done.key: done for done in pool.run(_die_on, {key: key for key in "abcdef"})}
    assert isinstance(completions["b"].error, PassingFaultError)
    assert "lost worker" in str(completions["b"].error)
    assert {key: done.value for key, done in completions.items() if key != "b"} == {
        key: key.upper() for key in "acdef"
    }


def test_a_worker_killed_while_idle_is_replaced_and_no_task_suffers():
    with WorkerPool(1) as pool:
        (process_id,) = _values(pool.run(_process_id, {"one": 1})).values()
        os.kill(process_id, signal.SIGKILL)
        time.sleep(0.3)
        (completion,) = pool.run(_process_id, {"two": 2})
    assert completion.error is None
    assert completion.value != process_id


def test_an_error_keeps_its_fields_on_the_way_from_the_worker(pool):
    (completion,) = pool.run(_reject, {"x": "some_file.asdf"})
    assert isinstance(completion.error, BadInputError)
    assert (completion.error.source, completion.error.remedy) == (
        "some_file.asdf",
        "format it again",
    )


def test_a_library_that_exits_is_an_error_of_its_task_only(pool):
    (completion,) = pool.run(_exit, {"x": "x"})
    assert isinstance(completion.error, PlatformError)
    assert "SystemExit(-1)" in str(completion.error)
    assert _values(pool.run(_process_id, {"one": 1}))["one"]


@pytest.mark.timeout(30)
def test_leaving_early_ends_the_work_in_hand():
    with WorkerPool(2) as pool:
        with pytest.raises(KeyboardInterrupt):
            for _ in pool.run(time.sleep, {"short": 0.0, "long": 60.0, "longer": 60.0}):
                raise KeyboardInterrupt
        assert len(_values(pool.run(_process_id, {"one": 1, "two": 2}))) == 2


@pytest.mark.timeout(30)
def test_closing_a_pool_ends_the_work_in_hand():
    with WorkerPool(2) as pool:
        tasks = pool.run(time.sleep, {"short": 0.0, "long": 60.0})
        next(tasks)


def test_workers_of_a_plain_script_do_not_run_it_and_do_not_outlive_it(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, time
            from roman_assets.publishing.workers import WorkerPool

            print("script", flush=True)
            with WorkerPool(1) as pool:
                for done in pool.run(os.getpgid, {"one": 0}):
                    print(*pool._workers[0]._processes, flush=True)
                for done in pool.run(time.sleep, {"long": 60.0}):
                    pass
            """
        )
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        # a worker that ran the script again would say so first
        assert parent.stdout.readline() == "script\n"
        worker = int(parent.stdout.readline())
        time.sleep(0.3)
        parent.kill()
    deadline = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("memory", "count"), [(40 * 2**30, 4), (11 * 2**30, 2), (3 * 2**30, 1), (64 * 2**20, 1)]
)
def test_the_number_of_workers_fits_processors_and_memory(monkeypatch, memory, count):
    monkeypatch.delenv(WORKERS_VARIABLE, raising=False)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(4)))
    monkeypatch.setattr(workers, "machine_memory", lambda: memory)
    assert worker_count(int(3.5 * 2**30)) == count


def test_the_operator_may_choose_the_number_of_workers(monkeypatch):
    monkeypatch.setenv(WORKERS_VARIABLE, "7")
    assert worker_count(2**30) == 7


@pytest.mark.parametrize("value", ["", "0", "-1", "two"])
def test_a_wrong_number_of_workers_is_refused_with_its_name(monkeypatch, value):
    monkeypatch.setenv(WORKERS_VARIABLE, value)
    with pytest.raises(PlatformError, match=WORKERS_VARIABLE):
        worker_count(2**30)
