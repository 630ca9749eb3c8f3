"""What a call worked out, kept for the next one like it, without growing for ever."""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(dict[Key, Value]):
    """A dict of at most `most` entries: one more, and it forgets all of them and begins anew.

    For what can be worked out again: extents or constants that change with every call fill any memory.
    Reading costs what it costs of a dict, and threads may share it.
    """

    __slots__ = ("most",)

    def __init__(self, most: int):
        super().__init__()
        self.most = most

    def __setitem__(self, key: Key, value: Value) -> None:
        if len(self) >= self.most and key not in self:
            self.clear()
        super().__setitem__(key, value)
