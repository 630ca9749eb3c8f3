"""Damaged, foreign and misplaced entries: one warning, a rebuild, never a wrong kernel."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from cache_cases import MATERIAL, ask, entry_path, leftovers, material_of, sections_of

from tilewright.errors import CacheWarning
from tilewright.runtime.cache import BuildCache, digest
from tilewright.runtime.cache_entry import DamagedEntry, Entry, decode, encode
from tilewright.runtime.warn import forget_warnings

ENTRY = Entry(digest(MATERIAL), MATERIAL, sections_of(MATERIAL))
SIZE = len(encode(ENTRY))


@pytest.fixture
def quick_disk(monkeypatch):
    """No waiting for the disk, in tests with hundreds of repairs."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def assert_repaired(folder: Path, seen: list, cause: str = "damaged") -> None:
    """One warning, one build, the right kernel; and the next process finds it on disk."""
    forget_warnings()
    seen.clear()
    cache = BuildCache(folder)
    assert ask(cache) == 1
    assert cache.statistics.repaired == 1
    assert [message.category for message in seen] == [CacheWarning]
    assert cause in str(seen[0].message)
    assert "built again" in str(seen[0].message)
    assert ask(BuildCache(folder)) == 0
    assert len(seen) == 1
    assert leftovers(folder) == []


def test_decode_gives_back_what_was_encoded():
    assert decode(encode(ENTRY)) == ENTRY


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_noticed(bit):
    data = bytearray(encode(ENTRY))
    for position in range(SIZE):
        data[position] ^= 1 << bit
        with pytest.raises(DamagedEntry):
            decode(bytes(data))
        data[position] ^= 1 << bit


def test_any_other_length_is_noticed():
    data = encode(ENTRY)
    for length in range(SIZE):
        with pytest.raises(DamagedEntry):
            decode(data[:length])
    for more in (b"\0", b"\0" * 32, data):
        with pytest.raises(DamagedEntry):
            decode(data + more)


def test_a_right_checksum_of_nonsense_is_noticed():
    """Nothing of this can be made by accident; it must still not end in an exception of another kind."""
    import hashlib

    for header in (
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"key": 1, "material": {}, "sections": [["a", 99]]}',
        b"\xff",
    ):
        body = b"tilewright/cache" + len(header).to_bytes(8, "little") + header
        with pytest.raises(DamagedEntry):
            decode(body + hashlib.sha256(body).digest())


def test_any_flipped_byte_on_disk_is_repaired(folder, seen, quick_disk):
    ask(BuildCache(folder))
    path = entry_path(folder)
    for position in range(SIZE):
        data = bytearray(path.read_bytes())
        data[position] ^= 0xFF
        path.write_bytes(data)
        assert_repaired(folder, seen)


@pytest.mark.parametrize(
    "length", [0, 1, 15, 16, 20, 24, 25, SIZE // 2, SIZE - 33, SIZE - 32, SIZE - 1, SIZE + 1]
)
def test_another_length_on_disk_is_repaired(folder, seen, length):
    ask(BuildCache(folder))
    os.truncate(entry_path(folder), length)
    assert_repaired(folder, seen)


def test_a_deleted_entry_is_built_without_a_warning(folder):
    ask(BuildCache(folder))
    entry_path(folder).unlink()
    assert ask(BuildCache(folder)) == 1
    assert ask(BuildCache(folder)) == 0


def make_folder(path: Path) -> None:
    path.mkdir()


def make_full_folder(path: Path) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file").write_text("something")


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_folder, make_full_folder, make_pipe, make_link_to_device])
def test_something_else_in_the_place_of_an_entry_is_replaced(folder, seen, make):
    ask(BuildCache(folder))
    entry_path(folder).unlink()
    make(entry_path(folder))
    assert_repaired(folder, seen)
    assert Path("/dev/zero").exists()


def test_a_link_to_nothing_is_replaced(folder):
    ask(BuildCache(folder))
    entry_path(folder).unlink()
    entry_path(folder).symlink_to(folder / "nothing")
    assert ask(BuildCache(folder)) == 1
    assert ask(BuildCache(folder)) == 0


def test_a_renamed_entry_is_not_believed(folder, seen):
    ask(BuildCache(folder), material_of(1))
    shutil.copy(entry_path(folder, material_of(1)), entry_path(folder))
    entry_path(folder).chmod(0o600)
    assert_repaired(folder, seen, "another key")


def test_an_entry_of_other_material_under_the_same_key_is_not_believed(folder, seen):
    """What a collision of SHA-256 would look like."""
    BuildCache(folder).store(digest(MATERIAL), {"object": b"wrong"}, {"program": "another"})
    assert_repaired(folder, seen, "another key")
    cache = BuildCache(folder)
    cache.store(digest(MATERIAL), {"object": b"wrong"}, {"program": "another"})
    assert ask(cache) == 1


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_entry_that_others_may_write_is_not_believed(folder, seen, mode):
    ask(BuildCache(folder))
    entry_path(folder).chmod(mode)
    assert_repaired(folder, seen, "others may write")


def test_an_entry_of_somebody_else_is_not_believed(folder, seen, foreign):
    ask(BuildCache(folder))
    foreign(entry_path(folder))
    assert_repaired(folder, seen, "belongs to user")


def test_a_link_to_an_entry_of_somebody_else_is_not_believed(folder, tmp_path, seen, foreign):
    ask(BuildCache(folder))
    shutil.move(entry_path(folder), tmp_path / "elsewhere")
    foreign(tmp_path / "elsewhere")
    entry_path(folder).symlink_to(tmp_path / "elsewhere")
    assert_repaired(folder, seen, "belongs to user")
    assert (tmp_path / "elsewhere").exists()


def test_a_hundred_damaged_entries_warn_once(folder, seen):
    for number in range(100):
        ask(BuildCache(folder), material_of(number))
        os.truncate(entry_path(folder, material_of(number)), number)
    cache = BuildCache(folder)
    assert sum(ask(cache, material_of(number)) for number in range(100)) == 100
    assert cache.statistics.repaired == 100
    assert len(seen) == 1


def test_a_warning_that_is_an_error_leaves_the_cache_usable(folder):
    ask(BuildCache(folder))
    os.truncate(entry_path(folder), 10)
    cache = BuildCache(folder)
    with pytest.raises(CacheWarning):  # pytest runs with warnings as errors
        ask(cache)
    assert ask(cache) == 1
    assert ask(BuildCache(folder)) == 0
    assert leftovers(folder) == []


@pytest.mark.exhaustive
def test_every_byte_and_length_of_a_bigger_entry(folder, seen, quick_disk):
    ask(BuildCache(folder), size=1600)
    path = entry_path(folder)
    good = path.read_bytes()
    for position in range(len(good)):
        for bad in (bytes([*good[:position], good[position] ^ 1, *good[position + 1 :]]), good[:position]):
            path.write_bytes(bad)
            forget_warnings()
            seen.clear()
            assert ask(BuildCache(folder), size=1600) == 1
            assert path.read_bytes() == good
            assert len(seen) == 1
