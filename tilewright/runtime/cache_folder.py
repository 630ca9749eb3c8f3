"""The folder of the build cache on disk: private, atomic, bounded, swept.

    <base>/v1/<key>.kernel         entries; the modification time is the time of the last use
    <base>/v1/work/<key>.lock      held while that key is built
    <base>/v1/work/*.part          entries while they are written

Machine code is loaded from here, so nothing is believed that somebody else could have written: neither
the folder nor an entry may belong to, or be writable by, another user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tilewright.runtime.locks import LockedFile, remove_if_abandoned

FORMAT = "v1"
ENTRY_SUFFIX = ".kernel"
LOCK_SUFFIX = ".lock"
PART_SUFFIX = ".part"
WORK = "work"

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
OPEN_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
ATTEMPTS = 5


class Untrusted(Exception):
    """A file or folder that somebody else could have written; says why."""


class NotAFile(Exception):
    """A folder, pipe or device where an entry should be."""


@dataclass(frozen=True)
class StoredFile:
    """An entry as the folder's listing shows it."""

    last_use: int
    path: str
    size: int


class CacheFolder:
    """Reads and writes whole entries; every method may raise OSError, for the caller to make a warning of."""

    def __init__(self, base: Path):
        """Open, and where needed make, the folder; raises `Untrusted` or OSError."""
        self.base = base
        self.path = str(base / FORMAT)
        self._work = os.path.join(self.path, WORK)
        self._make()
        self.sweep()

    def _make(self) -> None:
        self.base.parent.mkdir(parents=True, exist_ok=True)
        _make_private(str(self.base))
        _make_private(self.path, tighten=True)
        with contextlib.suppress(OSError):  # a read-only cache can still be read
            _make_private(self._work, tighten=True)

    def path_of(self, key: str) -> str:
        """Where the entry of a key is or would be."""
        return os.path.join(self.path, key + ENTRY_SUFFIX)

    def read(self, key: str) -> bytes | None:
        """The bytes stored for a key, or None; raises `Untrusted` or `NotAFile`. Counts as a use."""
        try:
            descriptor = os.open(self.path_of(key), READ_FLAGS)
        except FileNotFoundError:
            return None
        try:
            _check_file(os.fstat(descriptor))
            with contextlib.suppress(OSError):
                os.utime(descriptor)
            return _read_all(descriptor)
        finally:
            os.close(descriptor)

    def write(self, key: str, data: bytes) -> None:
        """Store bytes for a key; a reader sees all of them or none, whenever this process is killed."""
        try:
            part = self._new_part(key)
        except FileNotFoundError:  # somebody removed the folder
            self._make()
            part = self._new_part(key)
        renamed = False
        try:
            _write_all(part.descriptor, data)
            os.fsync(part.descriptor)
            _replace(part.path, self.path_of(key))
            renamed = True
        finally:
            part.release(remove=not renamed)
        _sync_folder(self.path)

    def _new_part(self, key: str) -> LockedFile:
        for _ in range(ATTEMPTS):
            name = f"{key[:16]}-{os.getpid()}-{os.urandom(6).hex()}{PART_SUFFIX}"
            part = LockedFile.create(os.path.join(self._work, name))
            if part is not None:
                return part
        raise FileExistsError(f"temporary files in {self._work} keep disappearing")

    def lock(self, key: str, patience: float) -> LockedFile:
        """The lock under which a key is built; raises TimeoutError or OSError."""
        path = os.path.join(self._work, key + LOCK_SUFFIX)
        try:
            return LockedFile.acquire(path, patience)
        except FileNotFoundError:
            self._make()
            return LockedFile.acquire(path, patience)

    def sweep(self) -> int:
        """Remove the temporary and lock files of dead processes, never of living ones; returns how many."""
        with contextlib.suppress(OSError), os.scandir(self._work) as listing:
            paths = [item.path for item in listing]
            return sum(remove_if_abandoned(path) for path in paths)
        return 0

    def entries(self) -> Iterator[StoredFile]:
        """All entries; those that vanish meanwhile are left out."""
        with os.scandir(self.path) as listing:
            for item in listing:
                if not item.name.endswith(ENTRY_SUFFIX):
                    continue
                with contextlib.suppress(OSError):
                    status = item.stat(follow_symlinks=False)
                    yield StoredFile(status.st_mtime_ns, item.path, status.st_size)

    def shrink(self, limit: int, keep: str | None = None) -> int:
        """Remove the least recently used entries, but not `keep`, down to `limit` bytes; returns the rest."""
        kept = None if keep is None else self.path_of(keep)
        entries = sorted(self.entries(), key=lambda entry: (entry.last_use, entry.path))
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if total <= limit:
                break
            if entry.path == kept:
                continue
            with contextlib.suppress(OSError):  # another process was quicker
                remove(entry.path)
            total -= entry.size
        return total


def remove(path: str) -> None:
    """Remove what is at an entry's path, even if it is a folder."""
    try:
        os.unlink(path)
    except (IsADirectoryError, PermissionError):  # the latter is what POSIX has for unlinking a folder
        if not os.path.isdir(path):
            raise
        import shutil  # only here: it imports every compression module

        shutil.rmtree(path)


def _make_private(path: str, *, tighten: bool = False) -> None:
    """Make a folder only for us, or check the one that is there (symbolic links are followed)."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.stat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "this is not a folder", path)
    _check_trust(status)
    if tighten and stat.S_IMODE(status.st_mode) & OPEN_FOR_OTHERS:
        with contextlib.suppress(OSError):
            os.chmod(path, stat.S_IMODE(status.st_mode) & ~OPEN_FOR_OTHERS)


def _check_file(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile("it is not a file")
    _check_trust(status)


def _check_trust(status: os.stat_result) -> None:
    if not hasattr(os, "geteuid"):
        return
    if status.st_uid != os.geteuid():
        raise Untrusted(f"it belongs to user {status.st_uid}, not to you (user {os.geteuid()})")
    if status.st_mode & WRITABLE_BY_OTHERS:
        raise Untrusted(f"others may write to it (mode {stat.S_IMODE(status.st_mode):o}; chmod go-w helps)")


def _replace(source: str, target: str) -> None:
    try:
        os.replace(source, target)
    except OSError:
        if not os.path.isdir(target) or os.path.islink(target):
            raise
        remove(target)
        os.replace(source, target)


def _read_all(descriptor: int) -> bytes:
    pieces = []
    while piece := os.read(descriptor, 1 << 24):
        pieces.append(piece)
    return b"".join(pieces)


def _write_all(descriptor: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _sync_folder(path: str) -> None:
    """Make a rename survive a power failure; systems that cannot do it lose the entry then, nothing more."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
