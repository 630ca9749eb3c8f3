"""The build cache: compiled kernels in memory and on disk, built once for all threads and processes.

    cache = BuildCache()
    sections = cache.get_or_build({"program": text, "target": "cpu"}, build=lambda: {"object": code})

The key is everything that the build depends on, the *material*; an entry is a few named byte strings. The
cache can make a build unnecessary, and nothing else: whatever happens to the disk, the files or other
processes, the caller gets what `build` returns or returned for exactly this material, at worst with one
`CacheWarning` and the time of a build.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from tilewright.errors import ArgumentError
from tilewright.runtime.cache_entry import DamagedEntry, Entry, canonical, decode, encode
from tilewright.runtime.cache_folder import CacheFolder, NotAFile, Untrusted
from tilewright.runtime.locks import KeyLocks, LockedFile
from tilewright.runtime.sizes import bytes_from_environment
from tilewright.runtime.warn import warn_of_system, warn_once

FOLDER_VARIABLE = "TILEWRIGHT_CACHE_DIR"
LIMIT_VARIABLE = "TILEWRIGHT_CACHE_LIMIT"
DEFAULT_LIMIT = 2 * 2**30
MEMORY_LIMIT = 256 * 2**20
PATIENCE = 60.0
HEX_DIGITS = frozenset("0123456789abcdef")

Sections = Mapping[str, bytes]

_caches: weakref.WeakSet[BuildCache] = weakref.WeakSet()


def digest(material: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal, of everything that a build depends on, in any order."""
    for name, value in material.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ArgumentError(f"cache material {name!r}: {value!r} must be text to text; write str(...)")
    return hashlib.sha256(canonical(dict(material))).hexdigest()


def default_folder() -> Path | None:
    """``$TILEWRIGHT_CACHE_DIR``, ``$XDG_CACHE_HOME/tilewright``, ``~/.cache/tilewright``, or None."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(shared):  # the XDG specification says to ignore a relative one
        return Path(shared) / "tilewright"
    if os.environ.get("HOME") == "":
        return None
    try:
        return Path.home() / ".cache" / "tilewright"
    except RuntimeError:
        return None


@dataclass(frozen=True)
class CacheStatistics:
    """What a cache did in this process: entries found, entries built, damaged entries replaced."""

    hits: int = 0
    builds: int = 0
    repaired: int = 0


class BuildCache:
    """Compiled kernels by what they were compiled from; safe for many threads, processes and forks."""

    def __init__(self, folder: Path | None = None, *, limit: int | None = None, patience: float = PATIENCE):
        """`limit`: most bytes on disk (0: none); `patience`: seconds to wait for another's build."""
        self._base = Path(folder).absolute() if folder is not None else default_folder()
        self._limit = bytes_from_environment(LIMIT_VARIABLE, DEFAULT_LIMIT) if limit is None else limit
        self._patience = patience
        self._key_locks = KeyLocks()
        self._lock = threading.Lock()
        self._recent = _RecentEntries(MEMORY_LIMIT)
        self._statistics = CacheStatistics()
        self._damaged: set[str] = set()
        self._folder: CacheFolder | None = None
        self._opened = False
        self._unseen = self._limit  # bytes stored since the folder was last measured, which it never was
        _caches.add(self)

    @property
    def statistics(self) -> CacheStatistics:
        """Counts since this object was made."""
        return self._statistics

    def get_or_build(self, material: Mapping[str, str], build: Callable[[], Sections]) -> Sections:
        """What was built from this material before, here or in another process, or else what `build` returns.

        Exceptions of `build` pass through, and nothing is stored then.
        """
        key = digest(material)
        material = dict(material)
        found = self._recall(key, material)
        if found is not None:
            return found
        with self._key_locks.hold(key, self._patience) as alone:
            found = self.load(key, material)
            if found is not None:
                return found
            with self._process_lock(key, wanted=alone) as locked:
                return self._built(key, material, build, look_again=locked)

    def _built(
        self, key: str, material: dict[str, str], build: Callable[[], Sections], *, look_again: bool
    ) -> Sections:
        found = self.load(key, material) if look_again else None  # another process may just have built it
        if found is not None:
            return found
        sections = build()
        self._count(builds=1)
        return self.store(key, sections, material)

    def load(self, key: str, material: Mapping[str, str] | None = None) -> Sections | None:
        """The sections stored for a key, or None. With `material`, only if they were built from just that."""
        found = self._recall(key, material)
        if found is not None:
            return found
        entry = self._read(key, material)
        if entry is None:
            return None
        self._count(hits=1)
        return self._recent.put(entry)

    def store(self, key: str, sections: Sections, material: Mapping[str, str] | None = None) -> Sections:
        """Keep sections in memory and, if the disk lets us, in the folder; returns them, read-only."""
        entry = Entry(key, dict(material or {}), _checked(sections))
        kept = self._recent.put(entry)
        self._write(entry)
        return kept

    def path_of(self, key: str) -> Path | None:
        """The file that holds or would hold a key's entry; None if nothing is kept on disk."""
        folder = self._open()
        return None if folder is None else Path(folder.path_of(_checked_key(key)))

    def size(self) -> int:
        """Bytes of all entries on disk, those of other processes included."""
        folder = self._open()
        try:
            return 0 if folder is None else sum(entry.size for entry in folder.entries())
        except OSError:
            return 0

    def clear(self) -> None:
        """Remove every entry, in memory and on disk. Builds that are under way will store theirs."""
        self._recent.clear()
        folder = self._open()
        if folder is None:
            return
        try:
            folder.shrink(-1)
            folder.sweep()
        except OSError as error:
            warn_of_system(error, f"the build cache in {folder.path} could not be cleared")

    def _recall(self, key: str, material: Mapping[str, str] | None) -> Sections | None:
        entry = self._recent.get(key)
        if entry is None or (material is not None and entry.material != material):
            return None
        self._count(hits=1)
        return entry.sections

    def _read(self, key: str, material: Mapping[str, str] | None) -> Entry | None:
        """The entry on disk, or None if there is none or it cannot be trusted, with a warning then."""
        folder = self._open()
        if folder is None:
            return None
        path = folder.path_of(_checked_key(key))
        try:
            data = folder.read(key)
            entry = None if data is None else _matching(decode(data), key, material)
        except (DamagedEntry, NotAFile) as reason:
            self._damaged.add(key)
            warn_once(
                "damaged entry", f"the build cache's entry {path} is damaged: {reason}; it is built again"
            )
            return None
        except Untrusted as reason:
            self._damaged.add(key)
            warn_once(
                "untrusted entry", f"the build cache's entry {path} is not used: {reason}; it is built again"
            )
            return None
        except OSError as error:
            warn_of_system(error, f"the build cache's entry {path} cannot be read, kernels are built again")
            return None
        if entry is not None:
            self._damaged.discard(key)
        return entry

    def _write(self, entry: Entry) -> None:
        folder = self._open()
        if folder is None:
            return
        data = encode(entry)
        if len(data) > self._limit:
            return
        _checked_key(entry.key)
        try:
            folder.write(entry.key, data)
            self._bound(folder, entry.key, len(data))
        except Untrusted as reason:
            warn_once("untrusted folder", f"the build cache in {folder.path} is not used: {reason}")
            return
        except OSError as error:
            warn_of_system(
                error, f"the build cache in {folder.path} cannot be written, kernels stay in memory only"
            )
            return
        if entry.key in self._damaged:
            self._damaged.discard(entry.key)
            self._count(repaired=1)

    def _bound(self, folder: CacheFolder, key: str, stored: int) -> None:
        """Keep to the limit. Listing costs, so it is done per 1/16 of the limit stored."""
        self._unseen += stored
        step = self._limit // 16
        if self._unseen <= step:
            return
        self._unseen = 0
        folder.shrink(self._limit - step, keep=key)

    def _open(self) -> CacheFolder | None:
        """The folder, made at its first use; None, after one warning, if it cannot be used."""
        if self._opened:
            return self._folder
        with self._lock:
            if not self._opened:
                self._folder = _opened_folder(self._base, self._limit)
                self._opened = True
        return self._folder

    @contextlib.contextmanager
    def _process_lock(self, key: str, *, wanted: bool) -> Iterator[bool]:
        """Keep other processes from building the key; says whether it worked and goes on in any case."""
        folder = self._open() if wanted else None
        lock = None if folder is None else self._waited_for(folder, key)
        try:
            yield lock is not None
        finally:
            if lock is not None:
                lock.release(remove=True)

    def _waited_for(self, folder: CacheFolder, key: str) -> LockedFile | None:
        try:
            return folder.lock(key, self._patience)
        except TimeoutError:
            warn_once(
                "lock",
                f"a lock of the build cache in {folder.path} was held by another process for "
                f"{self._patience:g} s; the kernel is built without waiting for it",
            )
        except Untrusted as reason:
            warn_once("untrusted folder", f"the build cache in {folder.path} is not used: {reason}")
        except OSError as error:
            warn_of_system(
                error, f"the build cache in {folder.path} cannot be locked, kernels may be built twice"
            )
        return None

    def _count(self, *, hits: int = 0, builds: int = 0, repaired: int = 0) -> None:
        with self._lock:
            now = self._statistics
            self._statistics = replace(
                now, hits=now.hits + hits, builds=now.builds + builds, repaired=now.repaired + repaired
            )

    def _reset_locks(self) -> None:
        self._lock = threading.Lock()
        self._recent.reset_lock()
        self._key_locks.reset()


@functools.cache
def shared_cache() -> BuildCache:
    """The build cache of this process, in the default folder."""
    return BuildCache()


class _RecentEntries:
    """The entries used last, up to a number of bytes."""

    def __init__(self, limit: int):
        self._limit = limit
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._size = 0
        self.reset_lock()

    def reset_lock(self) -> None:
        self._lock = threading.Lock()

    def get(self, key: str) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, entry: Entry) -> Sections:
        entry = Entry(entry.key, entry.material, MappingProxyType(dict(entry.sections)))
        with self._lock:
            self._drop(entry.key)
            self._entries[entry.key] = entry
            self._size += _bytes_in(entry)
            while self._size > self._limit and len(self._entries) > 1:
                self._drop(next(iter(self._entries)))
        return entry.sections

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._size = 0

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size -= _bytes_in(entry)


def _bytes_in(entry: Entry) -> int:
    return sum(map(len, entry.sections.values())) + sum(map(len, entry.material.values()))


def _matching(entry: Entry, key: str, material: Mapping[str, str] | None) -> Entry:
    """The entry, if it is the one asked for and not another under its name."""
    if entry.key != key or (material is not None and entry.material != material):
        raise DamagedEntry("it holds the kernel of another key")
    return entry


def _checked(sections: Sections) -> dict[str, bytes]:
    for name, content in sections.items():
        if not isinstance(name, str) or not isinstance(content, bytes):
            raise ArgumentError(
                f"cache section {name!r} is a {type(content).__name__}; a build returns names to bytes"
            )
    return dict(sections)


def _checked_key(key: str) -> str:
    """Keys become file names, so they may be nothing but what `digest` returns."""
    if len(key) != 64 or not HEX_DIGITS.issuperset(key):
        raise ArgumentError(f"{key!r} is not a cache key; keys come from digest(material)")
    return key


def _opened_folder(base: Path | None, limit: int) -> CacheFolder | None:
    if limit <= 0:
        return None
    remedy = f"kernels stay in memory only; set {FOLDER_VARIABLE} to a folder of yours"
    if base is None:
        warn_once("no home", f"there is no home folder for the build cache: {remedy}")
        return None
    try:
        return CacheFolder(base)
    except Untrusted as reason:
        warn_once("untrusted folder", f"the build cache in {base} is not used: {reason}; {remedy}")
    except OSError as error:
        warn_of_system(error, f"the build cache cannot be in {base}, {remedy}")
    return None


def _after_fork_in_child() -> None:
    for cache in list(_caches):
        cache._reset_locks()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
