"""The build cache when all is well: keys, layers, threads, limits, places."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cache_cases import MATERIAL, Builder, ask, entry_path, leftovers, material_of, never, sections_of

from tilewright.errors import ArgumentError, InternalError
from tilewright.runtime.cache import BuildCache, default_folder, digest, shared_cache


def test_digest_depends_on_every_name_and_value_and_not_on_their_order():
    forward = digest({"a": "1", "b": "2"})
    assert forward == digest({"b": "2", "a": "1"})
    others = [
        {"a": "2", "b": "1"},
        {"a": "1"},
        {"a": "1", "b": "2", "c": ""},
        {"ab": "12"},
        {},
        {"a": '1","b":"2'},
    ]
    assert len({forward, *map(digest, others)}) == 1 + len(others)


def test_digest_is_the_same_in_every_version():
    assert digest({"b": "2", "a": "1"}) == hashlib.sha256(b'{"a":"1","b":"2"}').hexdigest()


def test_digest_takes_any_text():
    assert len({digest({"a": text}) for text in ("", "\0", "é", "e\u0301", "\ud800", "名")}) == 6


@pytest.mark.parametrize("material", [{"a": 1}, {1: "a"}, {"a": None}, {"a": b"b"}])
def test_digest_refuses_what_has_no_one_spelling(material):
    with pytest.raises(ArgumentError, match=r"write str\(\.\.\.\)"):
        digest(material)


def test_the_second_question_is_answered_from_memory(folder):
    cache = BuildCache(folder)
    assert ask(cache) == 1
    cache.path_of(digest(MATERIAL)).unlink()
    assert ask(cache) == 0
    assert (cache.statistics.hits, cache.statistics.builds, cache.statistics.repaired) == (1, 1, 0)


def test_another_object_finds_it_on_disk(folder):
    assert ask(BuildCache(folder)) == 1
    cache = BuildCache(folder)
    assert ask(cache) == 0
    assert (cache.statistics.hits, cache.statistics.builds) == (1, 0)
    assert leftovers(folder) == []


def test_another_process_builds_nothing(folder):
    ask(BuildCache(folder))
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from cache_cases import MATERIAL, never, sections_of\n"
        "from tilewright.runtime.cache import BuildCache\n"
        "found = BuildCache(Path(sys.argv[1])).get_or_build(MATERIAL, never)\n"
        "assert dict(found) == sections_of(MATERIAL)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(folder)], check=True, env=environment)


def test_only_the_standard_library_is_imported():
    code = (
        "import sys, types\n"
        "package = types.ModuleType('tilewright')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "sys.modules['tilewright'] = package\n"
        "before = set(sys.modules)\n"
        "import tilewright.runtime.cache, tilewright.runtime.threads\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(names - set(sys.stdlib_module_names) - {'tilewright'}))\n"
        "print(*sorted(names & {'shutil', 'tempfile', 'subprocess', 'pickle', 'ctypes', 'ssl'}))\n"
    )
    package = str(Path(__file__).parents[2] / "tilewright")
    done = subprocess.run([sys.executable, "-c", code, package], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_an_answer_cannot_be_changed(folder):
    cache = BuildCache(folder)
    sections = cache.get_or_build(MATERIAL, Builder())
    with pytest.raises(TypeError):
        sections["object"] = b""  # type: ignore[index]


@pytest.mark.parametrize("sections", [{}, {"": b""}, {"a": b"\0" * 100_000}, {"é\n": b"1", "b": b"2"}])
def test_any_sections_come_back(folder, sections):
    BuildCache(folder).get_or_build(MATERIAL, lambda: sections)
    assert dict(BuildCache(folder).get_or_build(MATERIAL, never)) == sections


@pytest.mark.parametrize("sections", [{"a": "text"}, {1: b""}, {"a": bytearray(b"1")}])
def test_sections_must_be_bytes(folder, sections):
    cache = BuildCache(folder)
    with pytest.raises(ArgumentError, match="names to bytes"):
        cache.get_or_build(MATERIAL, lambda: sections)
    assert ask(cache) == 1


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError(28, "full"), StopIteration(1), KeyboardInterrupt()]
)
def test_exceptions_of_a_build_pass_and_leave_nothing(folder, error):
    cache = BuildCache(folder)

    def fail():
        raise error

    with pytest.raises(type(error)) as caught:
        cache.get_or_build(MATERIAL, fail)
    assert caught.value is error
    assert leftovers(folder) == []
    assert cache.size() == 0
    assert ask(cache) == 1


def test_a_build_may_need_another_kernel(folder):
    cache = BuildCache(folder)

    def build():
        assert ask(cache, material_of(1)) == 1
        return sections_of(MATERIAL)

    cache.get_or_build(MATERIAL, build)
    assert ask(BuildCache(folder), material_of(1)) == 0


def test_a_build_that_needs_itself_is_told_so(folder):
    cache = BuildCache(folder)
    with pytest.raises(InternalError, match="that same kernel"):
        cache.get_or_build(MATERIAL, lambda: dict(cache.get_or_build(MATERIAL, never)))
    assert ask(cache) == 1


def test_sixteen_threads_build_once(folder):
    cache = BuildCache(folder)
    ready = threading.Barrier(16)
    calls = []

    def build():
        calls.append(threading.get_ident())
        threading.Event().wait(0.05)
        return sections_of(MATERIAL)

    def work():
        ready.wait()
        assert dict(cache.get_or_build(MATERIAL, build)) == sections_of(MATERIAL)

    run_all([threading.Thread(target=work) for _ in range(16)])
    assert len(calls) == 1
    assert (cache.statistics.hits, cache.statistics.builds) == (15, 1)


def test_threads_build_different_kernels_at_the_same_time(folder):
    cache = BuildCache(folder)
    together = threading.Barrier(4, timeout=120)

    def work(number):
        def build():
            together.wait()  # breaks if the builds wait for each other
            return sections_of(material_of(number))

        cache.get_or_build(material_of(number), build)

    run_all([threading.Thread(target=work, args=(number,)) for number in range(4)])
    assert cache.statistics.builds == 4


def test_when_the_first_thread_fails_the_next_builds(folder):
    cache = BuildCache(folder)
    building = threading.Event()
    failed = []

    def fail():
        building.set()
        threading.Event().wait(0.05)
        raise ValueError

    def first():
        try:
            cache.get_or_build(MATERIAL, fail)
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    building.wait()
    assert ask(cache) == 1
    thread.join()
    assert len(failed) == 1


def test_load_and_store_by_key(folder):
    cache = BuildCache(folder)
    key = digest(MATERIAL)
    assert cache.load(key) is None
    cache.store(key, {"a": b"1"})
    assert dict(cache.load(key)) == {"a": b"1"}
    assert dict(BuildCache(folder).load(key)) == {"a": b"1"}


@pytest.mark.parametrize("key", ["", "../" * 20 + "etc", "A" * 64, "0" * 63, "0" * 65])
def test_a_key_is_what_digest_returns(folder, key):
    with pytest.raises(ArgumentError, match="digest"):
        BuildCache(folder).path_of(key)
    with pytest.raises(ArgumentError, match="digest"):
        BuildCache(folder).store(key, {})


def test_folders_and_files_are_private(folder):
    before = os.umask(0)
    try:
        ask(BuildCache(folder))
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_size_and_clear(folder):
    cache = BuildCache(folder)
    for number in range(3):
        ask(cache, material_of(number))
    assert cache.size() == sum(path.stat().st_size for path in (folder / "v1").glob("*.kernel")) > 0
    cache.clear()
    assert cache.size() == 0
    assert ask(cache, material_of(0)) == 1


def test_a_removed_folder_is_made_again(folder):
    cache = BuildCache(folder)
    ask(cache, material_of(0))
    shutil.rmtree(folder)
    assert ask(cache, material_of(1)) == 1
    assert ask(BuildCache(folder), material_of(1)) == 0


def test_the_entries_used_last_stay_within_the_limit(folder):
    cache = BuildCache(folder, limit=20_000)
    for number in range(30):
        ask(cache, material_of(number), size=3200)
        os.utime(entry_path(folder, material_of(number)), ns=(number, number))
        ask(BuildCache(folder), material_of(0), size=3200)  # a use: number 0 stays
        assert cache.size() <= 20_000
    there = [number for number in range(30) if entry_path(folder, material_of(number)).exists()]
    assert there[0] == 0
    assert there[1:] == list(range(30 - len(there) + 1, 30))
    assert len(there) >= 4


def test_the_limit_comes_from_the_environment(folder, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_CACHE_LIMIT", "12k")
    cache = BuildCache(folder)
    for number in range(10):
        ask(cache, material_of(number), size=3200)
    assert 0 < cache.size() <= 12 * 1024


@pytest.mark.parametrize("text", ["much", "-1", "1 mile", "0x10"])
def test_a_limit_that_is_no_size_is_refused(monkeypatch, text):
    monkeypatch.setenv("TILEWRIGHT_CACHE_LIMIT", text)
    with pytest.raises(ArgumentError, match=r"TILEWRIGHT_CACHE_LIMIT.*512M"):
        BuildCache()


def test_limit_zero_stores_nothing(folder):
    cache = BuildCache(folder, limit=0)
    assert ask(cache) == 1
    assert ask(cache) == 0
    assert cache.path_of(digest(MATERIAL)) is None
    assert not folder.exists()


def test_an_entry_over_the_limit_stays_in_memory(folder):
    cache = BuildCache(folder, limit=5000)
    assert ask(cache, material_of(0)) == 1
    assert ask(cache, size=6400) == 1
    assert ask(cache, size=6400) == 0
    assert ask(BuildCache(folder), material_of(0)) == 0


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", "~/mine")
    assert default_folder() == tmp_path / "home" / "mine"
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", "")
    assert default_folder() == tmp_path / "shared" / "tilewright"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert default_folder() == tmp_path / "home" / ".cache" / "tilewright"
    assert ask(BuildCache()) == 1
    assert ask(BuildCache()) == 0
    assert (tmp_path / "home" / ".cache" / "tilewright" / "v1").is_dir()


def test_a_process_shares_one_cache(monkeypatch, folder):
    monkeypatch.setenv("TILEWRIGHT_CACHE_DIR", str(folder))
    shared_cache.cache_clear()
    try:
        assert shared_cache() is shared_cache()
        assert ask(shared_cache()) == 1
        assert ask(BuildCache(folder)) == 0
    finally:
        shared_cache.cache_clear()


def run_all(threads: list[threading.Thread]) -> None:
    """Start and join."""
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
