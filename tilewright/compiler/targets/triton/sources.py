"""Generated source text becomes live `@triton.jit` functions, and who may use Triton's language meanwhile.

Triton reads a function's text through `inspect`, so a text that was never a file must stand in `linecache`
while its decorators run. The file name there is made from the text alone: every process, and every machine,
compiles the same bytes from the same text.

Triton's interpreter works by replacing attributes of `triton.language` for the whole process. Compilations
share the language, an interpretation has it alone; `LANGUAGE` is the lock that says so.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import linecache
import threading
import types
from collections.abc import Iterator
from typing import Any

from tilewright.errors import InternalError, TargetError

FILE_NAME = "<tilewright {digest}>"


class SharedLock:
    """Many may share, or one may have it alone; the thread that has it alone may also share."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._sharing = 0
        self._owner: int | None = None

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._owner is None or self._owner == threading.get_ident())
            self._sharing += 1
        try:
            yield
        finally:
            with self._condition:
                self._sharing -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: self._owner is None and self._sharing == 0)
            self._owner = threading.get_ident()
        try:
            yield
        finally:
            with self._condition:
                self._owner = None
                self._condition.notify_all()


LANGUAGE = SharedLock()

PARSER = threading.RLock()
"""Held while Python's text becomes a tree, here or in Triton. CPython 3.11 counts the depth of the tree that
it builds in one place for all threads, and refuses a tree whose building another thread has interrupted."""


def import_triton() -> types.ModuleType:
    """The `triton` package, or a `TargetError` that says how to get it."""
    try:
        import triton
    except ImportError as error:
        raise TargetError(
            f"the Triton target needs the package `triton` (3.6 or newer): {error}; "
            'install it with `pip install "triton>=3.6"`, or use the target "cpu"'
        ) from error
    return triton


def load_functions(source: str, *, file_name: str | None = None) -> dict[str, Any]:
    """Run a module text and return its namespace, in which jitted functions are `JITFunction`s.

    `source` is a whole module: its imports, its `@triton.jit` functions, its constants. `file_name` is what
    profilers and tracebacks will show; by default a name made from the text's digest.
    """
    import_triton()
    from triton.runtime.jit import JITFunction

    name = file_name or FILE_NAME.format(digest=hashlib.sha256(source.encode()).hexdigest()[:16])
    lines = source.splitlines(keepends=True)
    namespace: dict[str, Any] = {"__name__": "tilewright_generated", "__file__": name}
    # The modification time None marks an entry that `linecache.checkcache` must not drop.
    linecache.cache[name] = (len(source), None, lines, name)
    try:
        exec(compile(source, name, "exec"), namespace)
    except SyntaxError as error:
        raise InternalError(f"the generated Triton source does not parse: {error}\n{source}") from error
    for key, value in namespace.items():
        if _is_interpreted(value):
            namespace[key] = JITFunction(value.fn)
    return namespace


def kernel_function(namespace: dict[str, Any], kernel_name: str) -> Any:
    """The jitted function of that name, with an error that lists what there is."""
    from triton.runtime.jit import JITFunction

    function = namespace.get(kernel_name)
    if isinstance(function, JITFunction):
        return function
    known = sorted(key for key, value in namespace.items() if isinstance(value, JITFunction))
    raise InternalError(f"the generated source has no kernel {kernel_name!r}; it has {', '.join(known)}")


def parameter_names(source: str, kernel_name: str) -> list[str]:
    """The kernel's parameters in order, read from the text without running it (nor importing Triton)."""
    with PARSER:
        body = ast.parse(source).body
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == kernel_name:
            return [argument.arg for argument in node.args.args]
    raise InternalError(f"the generated source has no function {kernel_name!r}")


def _is_interpreted(value: object) -> bool:
    """Whether `triton.jit` made an interpreted function, as it does under TRITON_INTERPRET=1."""
    return type(value).__name__ == "InterpretedFunction"
