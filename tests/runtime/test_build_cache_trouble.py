"""A disk that is full, read-only, foreign or absent: the kernel is right all the same, with one warning."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
from collections.abc import Callable

import pytest
from cache_cases import MATERIAL, ask, entry_path, leftovers, material_of

from tilewright.errors import CacheWarning
from tilewright.runtime.cache import BuildCache
from tilewright.runtime.guard import run_forked


def fail_with(code: int) -> Callable[..., int]:
    """A system call that fails."""

    def fail(*arguments, **options):
        raise OSError(code, os.strerror(code))

    return fail


def assert_one_warning(seen: list, *parts: str) -> None:
    """Exactly one, which mentions all parts."""
    assert [message.category for message in seen] == [CacheWarning]
    for part in parts:
        assert part in str(seen[0].message)


def assert_works_in_memory(cache: BuildCache, first: int = 100, count: int = 3) -> None:
    """Builds each kernel once and remembers it."""
    for number in range(first, first + count):
        assert ask(cache, material_of(number)) == 1
    for number in range(first, first + count):
        assert ask(cache, material_of(number)) == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO], ids=errno.errorcode.get)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_disk_that_takes_nothing_more(folder, seen, monkeypatch, call, code):
    ask(BuildCache(folder))
    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_with(code))
        cache = BuildCache(folder)
        assert ask(cache) == 0
        assert_works_in_memory(cache)
    assert_one_warning(seen, errno.errorcode[code], "in memory only", str(folder))
    assert leftovers(folder) == []
    assert ask(BuildCache(folder), material_of(100)) == 1
    assert ask(BuildCache(folder), material_of(100)) == 0
    assert len(seen) == 1


def test_a_disk_that_fills_up_in_the_middle_of_a_file(folder, seen, monkeypatch):
    real_write = os.write
    written = []

    def write(descriptor, data):
        if len(written) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(real_write(descriptor, data[:100]))
        return written[-1]

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        assert ask(BuildCache(folder)) == 1
    assert written == [100, 100]
    assert_one_warning(seen, "ENOSPC")
    assert leftovers(folder) == []
    assert ask(BuildCache(folder)) == 1


def test_short_writes_are_continued(folder, monkeypatch):
    real_write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:7]))
        ask(BuildCache(folder))
    assert ask(BuildCache(folder)) == 0


def test_a_real_limit_on_the_size_of_files(folder):
    """RLIMIT_FSIZE fails a real write in its middle, without any privilege."""

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        with pytest.warns(CacheWarning, match="EFBIG") as seen:
            cache = BuildCache(folder)
            assert ask(cache, size=64_000) == 1
            assert ask(cache, size=64_000) == 0
            assert ask(cache, material_of(1), size=64_000) == 1
        assert len(seen) == 1

    assert_fine(work)
    assert leftovers(folder) == []
    assert not entry_path(folder).exists()


def test_no_more_files_may_be_opened(folder):
    ask(BuildCache(folder), material_of(0))

    def work():
        highest = max(map(int, os.listdir("/dev/fd")))
        cache = BuildCache(folder)
        ask(cache, material_of(1))
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 10, limit))
        hoard = []
        with pytest.raises(OSError, match="Too many"):
            while True:
                hoard.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.warns(CacheWarning, match="EMFILE") as seen:
            assert_works_in_memory(cache)
            assert_works_in_memory(BuildCache(folder))
        assert len(seen) == 1
        for descriptor in hoard:
            os.close(descriptor)
        assert ask(cache, material_of(0)) == 0
        assert ask(cache, material_of(50)) == 1

    assert_fine(work)
    assert leftovers(folder) == []
    assert ask(BuildCache(folder), material_of(50)) == 0


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS], ids=errno.errorcode.get)
def test_a_read_only_folder_is_read(folder, seen, monkeypatch, code):
    ask(BuildCache(folder))
    (folder / "v1" / "work").rmdir()
    make_read_only(monkeypatch, code)
    cache = BuildCache(folder)
    assert ask(cache) == 0
    assert seen == []
    assert_works_in_memory(cache)
    assert_one_warning(seen, errno.errorcode[code])


def test_a_folder_that_cannot_be_made(folder, seen, monkeypatch):
    make_read_only(monkeypatch, errno.EACCES)
    assert_works_in_memory(BuildCache(folder))
    assert_works_in_memory(BuildCache(folder))
    assert_one_warning(seen, "EACCES", str(folder), "TILEWRIGHT_CACHE_DIR")


def test_a_folder_whose_parent_is_a_file(tmp_path, seen):
    (tmp_path / "file").touch()
    assert_works_in_memory(BuildCache(tmp_path / "file" / "cache"))
    assert_one_warning(seen, "TILEWRIGHT_CACHE_DIR")


def test_a_folder_that_is_a_file(folder, seen):
    folder.touch()
    assert_works_in_memory(BuildCache(folder))
    assert_one_warning(seen, "not a folder")


def test_a_folder_that_vanishes_for_good(folder, seen, monkeypatch):
    cache = BuildCache(folder)
    ask(cache)
    folder.rename(folder.with_name("away"))
    make_read_only(monkeypatch, errno.EROFS)
    assert_works_in_memory(cache)
    assert_one_warning(seen, "EROFS")


def test_no_home(seen, monkeypatch):
    for name in ("TILEWRIGHT_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "")
    assert_works_in_memory(BuildCache())
    assert_one_warning(seen, "no home", "TILEWRIGHT_CACHE_DIR")


def test_no_home_and_an_unknown_user(seen, monkeypatch):
    for name in ("TILEWRIGHT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 987654)
    assert_works_in_memory(BuildCache())
    assert_one_warning(seen, "no home")


@pytest.mark.parametrize("part", ["", "v1", "v1/work"])
def test_a_folder_of_somebody_else_is_not_used(folder, seen, foreign, part):
    ask(BuildCache(folder))
    foreign(folder / part)
    before = sorted(folder.rglob("*"))
    assert ask(BuildCache(folder)) == 1
    assert_works_in_memory(BuildCache(folder))
    assert sorted(folder.rglob("*")) == before
    assert_one_warning(seen, "belongs to user 12345")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
@pytest.mark.parametrize("part", ["", "v1"])
def test_a_folder_that_others_may_write_is_not_used(folder, seen, part, mode):
    ask(BuildCache(folder))
    (folder / part).chmod(mode)
    assert ask(BuildCache(folder)) == 1
    assert_one_warning(seen, "others may write", "chmod go-w")
    (folder / part).chmod(0o700)
    assert ask(BuildCache(folder)) == 0


def test_a_link_to_a_folder_of_somebody_else_is_not_used(folder, tmp_path, seen, foreign):
    (tmp_path / "theirs").mkdir(0o755)
    folder.symlink_to(tmp_path / "theirs")
    foreign(tmp_path / "theirs")
    assert_works_in_memory(BuildCache(folder))
    assert list((tmp_path / "theirs").iterdir()) == []
    assert_one_warning(seen, "belongs to user 12345")


def test_a_link_to_a_folder_of_ours_is_used(folder, tmp_path):
    (tmp_path / "ours").mkdir(0o755)
    folder.symlink_to(tmp_path / "ours")
    assert ask(BuildCache(folder)) == 1
    assert ask(BuildCache(folder)) == 0
    assert (tmp_path / "ours" / "v1").stat().st_mode & 0o777 == 0o700


def test_a_folder_open_for_reading_is_closed(folder):
    ask(BuildCache(folder))
    (folder / "v1").chmod(0o755)
    assert ask(BuildCache(folder)) == 0
    assert (folder / "v1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_filesystem_without_locks(folder, seen, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", fail_with(code))
    assert ask(BuildCache(folder)) == 1
    assert ask(BuildCache(folder)) == 0
    assert_one_warning(seen, errno.errorcode[code], "built twice")
    assert leftovers(folder) == []
    recent, old = folder / "v1/work/recent.part", folder / "v1/work/old.part"
    recent.touch()
    old.touch()
    os.utime(old, (0, 0))
    assert ask(BuildCache(folder), MATERIAL) == 0
    assert leftovers(folder) == ["recent.part"]


def make_read_only(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What a user without rights sees; the tests may run as root, who may write anywhere."""
    real_open = os.open

    def guarded_open(path, flags, *arguments, **options):
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(code, os.strerror(code), path)
        return real_open(path, flags, *arguments, **options)

    def guarded_mkdir(path, *arguments, **options):
        if os.path.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(os, "open", guarded_open)
    monkeypatch.setattr(os, "mkdir", guarded_mkdir)
    for name in ("utime", "unlink", "replace", "chmod"):
        monkeypatch.setattr(os, name, fail_with(code))


def assert_fine(work: Callable[[], None]) -> None:
    """Run in a child, whose limits do not matter to the other tests."""
    outcome = run_forked(work, timeout=300)
    assert outcome.kind == "returned", outcome.report
