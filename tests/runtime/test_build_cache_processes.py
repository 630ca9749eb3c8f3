"""Many processes on one build cache: killed, hung, forked, racing."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from cache_cases import MATERIAL, Builder, ask, leftovers, material_of, never, sections_of

from tilewright.errors import CacheWarning
from tilewright.runtime.cache import BuildCache, digest
from tilewright.runtime.guard import fork, run_forked
from tilewright.runtime.locks import LockedFile, remove_if_abandoned

PROCESSES = 8
KERNELS = 40
BIG = 256_000
PATIENCE = 120.0  # seconds until a hang is taken for one: many times what a loaded machine needs
needs_proc = pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs Linux's /proc")


class Crew:
    """Forked children; those that end by themselves must have succeeded."""

    def __init__(self, work: Callable[[int], None]):
        self.work = work
        self.members: dict[int, int] = {}

    def start(self, seed: int) -> None:
        child = fork()
        if child == 0:
            code = 1
            try:
                self.work(seed)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        self.members[child] = seed

    def kill(self, child: int) -> None:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        del self.members[child]
        assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "a process failed before it was killed"

    def join(self, timeout: float = PATIENCE) -> None:
        deadline = time.monotonic() + timeout
        while self.members:
            for child in list(self.members):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    del self.members[child]
                    assert os.waitstatus_to_exitcode(status) == 0, "a process failed"
            assert time.monotonic() < deadline, "a process hangs"
            time.sleep(0.002)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_) -> None:
        for child in list(self.members):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def write_slowly() -> None:
    """Stretch the moments in which a kill could do harm. Only in children: it changes the `os` module."""
    real_write, real_replace = os.write, os.replace

    def write(descriptor, data):
        time.sleep(0.0005)
        return real_write(descriptor, data[: BIG // 8])

    def replace(*arguments, **options):
        time.sleep(0.001)
        real_replace(*arguments, **options)
        time.sleep(0.001)

    os.write, os.replace = write, replace


def work_until_killed(folder: Path, seed: int) -> None:
    """Ask for random kernels, check every byte, now and then remove something."""
    write_slowly()
    draw = random.Random(seed)
    while True:
        cache = BuildCache(folder, limit=KERNELS * BIG * 3 // 4)
        material = material_of(draw.randrange(KERNELS))

        def build(material=material):
            time.sleep(draw.uniform(0.01, 0.05))
            return sections_of(material, BIG)

        assert dict(cache.get_or_build(material, build)) == sections_of(material, BIG)
        if draw.random() < 0.02:
            cache.clear()


def kill_and_restart(folder: Path, kills: int) -> None:
    draw = random.Random(kills)
    with Crew(lambda seed: work_until_killed(folder, seed)) as crew:
        for seed in range(PROCESSES):
            crew.start(seed)
        for number in range(kills):
            time.sleep(draw.uniform(0.0, 0.06))
            crew.kill(draw.choice(list(crew.members)))
            crew.start(PROCESSES + number)
        wait_for_an_entry(folder)
        for child in list(crew.members):
            crew.kill(child)


def wait_for_an_entry(folder: Path) -> None:
    """The processes that are still there get something done, however loaded the machine is."""
    deadline = time.monotonic() + PATIENCE
    while BuildCache(folder).size() == 0:
        assert time.monotonic() < deadline, "nothing is ever stored"
        time.sleep(0.002)


def assert_clean(folder: Path) -> None:
    """The next process finds nothing but whole entries (a damaged one would warn, which is an error here)."""
    cache = BuildCache(folder)
    cache.size()  # opens the folder, and so sweeps it; it may be empty: processes clear it, too
    assert leftovers(folder) == []
    there = 0
    for number in range(KERNELS):
        found = cache.load(digest(material_of(number)), material_of(number))
        if found is not None:
            there += 1
            assert dict(found) == sections_of(material_of(number), BIG)
    assert there == len(list((folder / "v1").iterdir())) - 1
    assert ask(cache, MATERIAL) == 1


def test_forty_kills_do_no_harm(folder):
    kill_and_restart(folder, 40)
    assert_clean(folder)


@pytest.mark.exhaustive
def test_two_hundred_kills_do_no_harm(folder):
    kill_and_restart(folder, 200)
    assert_clean(folder)


def test_eight_processes_build_once(folder, tmp_path):
    log = tmp_path / "log"

    def work(seed):
        for number in range(10):

            def build(number=number):
                with open(log, "a") as lines:
                    lines.write(f"{number}\n")
                time.sleep(0.02)
                return sections_of(material_of(number))

            found = BuildCache(folder).get_or_build(material_of(number), build)
            assert dict(found) == sections_of(material_of(number))

    with Crew(work) as crew:
        for seed in range(PROCESSES):
            crew.start(seed)
        crew.join()
    assert sorted(log.read_text().split(), key=int) == [str(number) for number in range(10)]
    assert leftovers(folder) == []


def test_a_killed_builder_is_replaced_at_once(folder, tmp_path):
    started = tmp_path / "started"

    def work(seed):
        def build():
            started.touch()
            time.sleep(60)
            return {}

        BuildCache(folder).get_or_build(MATERIAL, build)

    with Crew(work) as crew:
        crew.start(0)
        wait_for(started.exists)
        cache = BuildCache(folder, patience=50)
        thread = threading.Timer(0.05, lambda: crew.kill(next(iter(crew.members))))
        thread.start()
        assert ask(cache) == 1, "waiting for 50 s would have warned"
        thread.join()
    assert leftovers(folder) == []


def test_a_hung_builder_is_passed_by(folder, tmp_path):
    started = tmp_path / "started"

    def work(seed):
        def build():
            started.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
            return {}

        BuildCache(folder).get_or_build(MATERIAL, build)

    with Crew(work) as crew:
        crew.start(0)
        wait_for(started.exists)
        cache = BuildCache(folder, patience=0.1)
        begin = time.monotonic()
        with pytest.warns(CacheWarning, match=r"held by another process for 0\.1 s"):
            assert ask(cache) == 1
        assert time.monotonic() - begin >= 0.1
        assert len(leftovers(folder)) == 1, "the lock of a living process was removed"
        assert ask(BuildCache(folder, patience=50)) == 0, "what was built meanwhile is found without the lock"
    assert ask(BuildCache(folder)) == 0
    assert leftovers(folder) == []


def test_a_hung_thread_is_passed_by(folder):
    cache = BuildCache(folder, patience=0.1)
    started, finish = threading.Event(), threading.Event()

    def build():
        started.set()
        finish.wait(PATIENCE)
        return sections_of(MATERIAL)

    thread = threading.Thread(target=cache.get_or_build, args=(MATERIAL, build))
    thread.start()
    started.wait()
    assert ask(cache) == 1
    finish.set()
    thread.join()
    assert ask(cache) == 0
    assert leftovers(folder) == []


def test_a_process_that_evicts_while_others_read(folder):
    """A folder that holds few kernels: entries vanish all the time, and nobody gets an error."""

    def work(seed):
        draw = random.Random(seed)
        for _ in range(100):
            ask(BuildCache(folder, limit=20_000), material_of(draw.randrange(10)), size=3200)

    with Crew(work) as crew:
        for seed in range(4):
            crew.start(seed)
        crew.join()
    assert BuildCache(folder).size() <= 20_000 + 4 * 4000
    assert leftovers(folder) == []


def test_a_fork_while_another_thread_builds(folder):
    """The child has none of the parent's threads, and must wait for none of their locks."""
    cache = BuildCache(folder, patience=20)
    started, finish = threading.Event(), threading.Event()

    def build():
        started.set()
        finish.wait(PATIENCE)
        return sections_of(MATERIAL)

    thread = threading.Thread(target=cache.get_or_build, args=(MATERIAL, build))
    thread.start()
    started.wait()
    outcome = run_forked(lambda: ask(cache, material_of(1)), timeout=PATIENCE)
    assert outcome.kind == "returned", outcome.report
    finish.set()
    thread.join()
    assert ask(cache, material_of(1)) == 0
    assert leftovers(folder) == []


def test_a_fork_while_the_cache_is_locked_inside(folder):
    cache = BuildCache(folder)
    ask(cache)
    with cache._lock, cache._recent._lock, cache._key_locks._guard:
        outcome = run_forked(lambda: (ask(cache), ask(cache, material_of(1))), timeout=PATIENCE)
    assert outcome.kind == "returned", outcome.report


def test_a_forked_child_does_not_keep_its_parents_lock(folder):
    """Else a builder's lock would outlive it in any worker process it had started."""
    building, child_started = os.pipe()

    def parent():
        def build():
            if fork() == 0:
                time.sleep(60)
                os._exit(0)
            os.write(child_started, b"1")
            time.sleep(60)
            return {}

        os.setpgid(0, 0)
        BuildCache(folder).get_or_build(MATERIAL, build)

    with Crew(lambda seed: parent()) as crew:
        crew.start(0)
        os.read(building, 1)
        (builder,) = crew.members
        crew.kill(builder)
        assert ask(BuildCache(folder, patience=30)) == 1, "waiting for 30 s would have warned"
        os.killpg(builder, signal.SIGKILL)
    os.close(building)
    os.close(child_started)


def test_a_build_that_returns_in_a_forked_child_leaves_the_parents_lock(folder):
    cache = BuildCache(folder)
    lock_was_there = []

    def build():
        child = fork()
        if child:
            _, status = os.waitpid(child, 0)
            lock_was_there.append(leftovers(folder) != [])
            assert os.waitstatus_to_exitcode(status) == 0
        return sections_of(MATERIAL)

    parent = os.getpid()
    try:
        assert dict(cache.get_or_build(MATERIAL, build)) == sections_of(MATERIAL)
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert lock_was_there == [True]
    assert leftovers(folder) == []


def test_files_of_the_living_stay_and_those_of_the_dead_go(folder):
    ask(BuildCache(folder))
    work = folder / "v1" / "work"
    for name in ("dead.part", "dead.lock"):
        (work / name).write_bytes(b"half")
    part = LockedFile.create(str(work / "living.part"))
    lock = LockedFile.acquire(str(work / "living.lock"), 0)
    assert part is not None
    assert ask(BuildCache(folder), MATERIAL) == 0
    assert leftovers(folder) == ["living.lock", "living.part"]
    part.release(remove=True)
    lock.release(remove=True)
    assert leftovers(folder) == []


def test_a_lock_removed_while_it_is_waited_for(tmp_path):
    """The waiter gets the lock of a file that is gone, notices, and takes the new one."""
    path = str(tmp_path / "lock")
    first = LockedFile.acquire(path, 0)
    second = []
    thread = threading.Thread(target=lambda: second.append(LockedFile.acquire(path, 30)))
    thread.start()
    time.sleep(0.05)
    first.release(remove=True)
    thread.join()
    assert os.path.samestat(os.stat(path), os.fstat(second[0].descriptor))
    with pytest.raises(TimeoutError):
        LockedFile.acquire(path, 0.01)
    second[0].release(remove=True)


def test_a_filesystem_whose_files_never_look_the_same(folder, monkeypatch):
    """Then no lock can be trusted; the build goes on without one."""
    cache = BuildCache(folder)
    ask(cache, material_of(1))
    monkeypatch.setattr(os.path, "samestat", lambda one, other: False)
    with pytest.warns(CacheWarning) as seen:
        assert ask(cache) == 1
    assert len(seen) <= 2


@needs_proc
@pytest.mark.parametrize("swept", [1, 4, 5])
def test_a_temporary_file_swept_before_it_was_locked(folder, monkeypatch, swept):
    """A sweep that sees it in the instant between its making and its locking takes it for abandoned."""
    cache = BuildCache(folder)
    ask(cache, material_of(1))
    real_flock = fcntl.flock
    left = [swept]

    def flock(descriptor, operation):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".part") and operation & fcntl.LOCK_EX and left[0]:
            left[0] -= 1
            os.unlink(path)
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    if swept < 5:
        assert ask(cache) == 1
        assert ask(BuildCache(folder)) == 0
    else:
        with pytest.warns(CacheWarning, match="keep disappearing"):
            assert ask(cache) == 1
    assert leftovers(folder) == []


@needs_proc
def test_a_sweep_that_is_looking_at_a_new_temporary_file(folder, monkeypatch):
    """It has the lock, and will remove the file: the writer takes another name."""
    cache = BuildCache(folder)
    ask(cache, material_of(1))
    real_flock = fcntl.flock
    swept = []

    def flock(descriptor, operation):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith(".part") and not swept:
            swept.append(os.open(path, os.O_RDWR))
            real_flock(swept[0], fcntl.LOCK_EX)
        real_flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert ask(cache) == 1
    os.close(swept[0])
    assert len(leftovers(folder)) == 1
    assert ask(BuildCache(folder)) == 0
    assert leftovers(folder) == []


def test_only_what_is_abandoned_is_removed(tmp_path):
    lock = LockedFile.acquire(str(tmp_path / "lock"), 0)
    assert not remove_if_abandoned(lock.path)
    lock.release(remove=False)
    assert remove_if_abandoned(lock.path)
    assert not remove_if_abandoned(lock.path)


@needs_proc
def test_no_descriptor_stays_open(folder):
    def open_descriptors():
        return sorted(os.listdir("/proc/self/fd"))

    cache = BuildCache(folder)
    before = open_descriptors()
    for number in range(20):
        ask(cache, material_of(number))
    with pytest.raises(ValueError, match="no"):
        cache.get_or_build(MATERIAL, fail)
    assert BuildCache(folder).get_or_build(material_of(3), never)
    assert Builder().calls == 0
    assert open_descriptors() == before


def fail():
    raise ValueError("no")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)
