"""Locks between processes (`LockedFile`) and between the threads of one (`KeyLocks`).

A `LockedFile` is locked as long as its owner lives: the kernel drops an ``flock`` when the process dies,
however it dies, so no lock has to be guessed stale by its age or by a process number (which means nothing
in another container). Whoever removes such a file holds its lock, and whoever gets the lock then looks
whether the file is still at its path: so removing is safe, and neither lock files nor temporary files
pile up.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tilewright.errors import InternalError

try:
    import fcntl
except ImportError:  # no flock on this system: files are still replaced whole, but work may be done twice
    fcntl = None

FLAGS = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05
LONG_DEAD = 24 * 3600.0
MOST_LOSSES = 100  # of a lock that was removed while it was waited for

# A forked child closes its copies of these descriptors: they would keep the locks after the parent's death.
_descriptors: set[int] = set()
_opening = threading.RLock()  # no fork between the opening of a descriptor and its registration


class LockedFile:
    """An open file whose lock this process holds."""

    def __init__(self, path: str, descriptor: int):
        self.path = path
        self.descriptor = descriptor
        self._owner = os.getpid()

    @classmethod
    def create(cls, path: str) -> LockedFile | None:
        """A new file, or None if a sweep took it for abandoned before it was locked: try another name."""
        descriptor = _open(path, os.O_CREAT | os.O_EXCL)
        with _closing_on_error(descriptor):
            if _lock_own(descriptor) and _is_at(path, descriptor):
                return cls(path, descriptor)
        _close(descriptor)
        return None

    @classmethod
    def acquire(cls, path: str, patience: float) -> LockedFile:
        """The lock on a path; raises TimeoutError after `patience` seconds, OSError if there are no locks."""
        deadline = time.monotonic() + patience
        for _ in range(MOST_LOSSES):
            descriptor = _open(path, os.O_CREAT)
            with _closing_on_error(descriptor):
                _lock_until(descriptor, deadline, path)
                if _is_at(path, descriptor):
                    return cls(path, descriptor)
            _close(descriptor)
            time.sleep(FIRST_PAUSE)
        raise TimeoutError(f"the lock {path} was removed again and again")

    def release(self, *, remove: bool) -> None:
        """Give up the lock, and the file if `remove`. In a forked child the parent's lock is left alone."""
        if self._owner != os.getpid():
            return
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        with contextlib.suppress(OSError):
            _unlock(self.descriptor)
        _close(self.descriptor)


def remove_if_abandoned(path: str) -> bool:
    """Remove a `LockedFile` whose owner is dead; True if it was."""
    try:
        descriptor = _open(path, 0)
    except OSError:
        return False
    try:
        return _is_abandoned(path, descriptor) and _unlinked(path)
    finally:
        _close(descriptor)


def _is_abandoned(path: str, descriptor: int) -> bool:
    try:
        _lock_now(descriptor)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: nobody writes one file for a day
        return time.time() - os.fstat(descriptor).st_mtime > LONG_DEAD
    return _is_at(path, descriptor)


def _unlinked(path: str) -> bool:
    with contextlib.suppress(OSError):
        os.unlink(path)
        return True
    return False


def _is_at(path: str, descriptor: int) -> bool:
    """Whether the open file is the one at the path: it may have been removed and made anew by others."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def _open(path: str, flags: int) -> int:
    with _opening:
        descriptor = os.open(path, FLAGS | flags, 0o600)
        _descriptors.add(descriptor)
    return descriptor


def _close(descriptor: int) -> None:
    with _opening:
        _descriptors.discard(descriptor)
        os.close(descriptor)


@contextlib.contextmanager
def _closing_on_error(descriptor: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _close(descriptor)
        raise


def _lock_now(descriptor: int) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lock_own(descriptor: int) -> bool:
    """Lock a file just made; False if a sweep has it."""
    try:
        _lock_now(descriptor)
    except BlockingIOError:
        return False
    except OSError:  # a filesystem without locks, where sweeps go by age
        return True
    return True


def _unlock(descriptor: int) -> None:
    """Explicitly, as closing alone would leave the lock with a child that was forked meanwhile."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock_until(descriptor: int, deadline: float, path: str) -> None:
    """Ask again and again: a blocking request could not be given up when its holder hangs."""
    pause = FIRST_PAUSE
    while True:
        try:
            return _lock_now(descriptor)
        except BlockingIOError:
            remaining = deadline - time.monotonic()
        except OSError:  # no locks here: nobody holds this one, so its file need not stay
            _unlinked(path)
            raise
        if remaining <= 0:
            raise TimeoutError(f"the lock {path} is held by another process")
        time.sleep(min(pause, remaining))
        pause = min(2 * pause, LONGEST_PAUSE)


@dataclass
class _KeyLock:
    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    owner: int | None = None


class KeyLocks:
    """A lock for each key among the threads of this process; a key nobody wants takes no memory."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all holders: in a forked child they do not exist."""
        self._guard = threading.Lock()
        self._locks: dict[str, _KeyLock] = {}

    @contextlib.contextmanager
    def hold(self, key: str, patience: float) -> Iterator[bool]:
        """Run the body alone; after `patience` seconds of waiting, all the same. Says which."""
        entry = self._enter(key)
        held = False
        try:
            held = entry.lock.acquire(timeout=patience)
            if held:
                entry.owner = threading.get_ident()
            yield held
        finally:
            if held:
                entry.owner = None
                entry.lock.release()
            self._leave(key, entry)

    def _enter(self, key: str) -> _KeyLock:
        with self._guard:
            entry = self._locks.setdefault(key, _KeyLock())
            if entry.owner == threading.get_ident():
                raise InternalError("the build of a kernel asked the build cache for that same kernel")
            entry.users += 1
        return entry

    def _leave(self, key: str, entry: _KeyLock) -> None:
        with self._guard:
            entry.users -= 1
            if entry.users == 0 and self._locks.get(key) is entry:
                del self._locks[key]


def _after_fork_in_child() -> None:
    global _opening
    _opening = threading.RLock()
    for descriptor in _descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _descriptors.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _opening.acquire(),
        after_in_parent=lambda: _opening.release(),
        after_in_child=_after_fork_in_child,
    )
