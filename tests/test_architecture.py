"""What DESIGN.md §6 draws: who may import whom, who may know a target's tools, and what is loaded when."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import tilewright
from tilewright import kernels
from tilewright.dsl import language
from tilewright.dsl.scalars import SCALARS

PACKAGE = Path(tilewright.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Each folder may import those to its left; `errors` is everybody's, `runtime` of what compiles or launches.
ORDER = ("dsl", "autograd", "compiler", "autotune", "op", "kernels", "tensor", "nn", "optim", "cli")
WRITTEN_WITH_THE_LANGUAGE = {"kernels", "nn", "optim", "cli"}  # these may `import tilewright as tw`
HEAVY = (
    "sympy",
    "triton",
    "torch_mlir",
    "mlir",
    "llvmlite",
    "torch",
    "ml_dtypes",
    "safetensors",
    "rich",
    "typer",
)
COMPILERS = ("sympy", "mpmath", "triton", "torch_mlir", "mlir", "torch")

# An op of the library may share its name with a function of the language, of NumPy, or with an everyday word.
OP_NAMES = (
    set(kernels.__all__) - set(SCALARS) - set(language.__all__) - {"ACTIVATIONS", "linear", "l1", "matmul"}
)


def module_name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def folder_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """The full name of everything that a module imports, also inside functions and by `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant))


def _called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def may_import(importer: str, imported: str) -> bool:
    """Whether the folder `importer` may import the folder `imported`."""
    if imported in ("errors", importer, "__version__"):
        return True
    if imported == "runtime":
        return importer not in ("dsl", "autograd")
    if importer in ORDER and imported in ORDER:
        return ORDER.index(imported) < ORDER.index(importer)
    return False


INNER = [
    path for path in MODULES if folder_of(path) != "__init__"
]  # the package itself gathers what users see


@pytest.mark.parametrize("path", INNER, ids=module_name)
def test_imports_point_one_way(path: Path):
    importer = folder_of(path)
    for name in imports(ast.parse(path.read_text())):
        parts = name.split(".")
        if parts[0] != "tilewright":
            continue
        if len(parts) == 1:
            assert importer in WRITTEN_WITH_THE_LANGUAGE, f"{module_name(path)} imports the whole package"
            continue
        known = parts[1] in (*ORDER, "errors", "runtime", "__version__")
        if not known:  # `from tilewright import softmax`: a name of the language
            assert importer in WRITTEN_WITH_THE_LANGUAGE, f"{module_name(path)} imports {name}"
            continue
        assert may_import(importer, parts[1]), f"{module_name(path)} imports {name}"


def test_the_order_of_imports_is_checked():
    assert may_import("kernels", "op") and may_import("op", "dsl")
    assert (
        not may_import("dsl", "op") and not may_import("dsl", "runtime") and not may_import("runtime", "dsl")
    )


OWNERS = {
    "triton": ("compiler/targets/triton/", "runtime/cuda"),
    "mlir": ("compiler/targets/cpu/",),
    "torch_mlir": ("compiler/targets/cpu/",),
    "llvmlite": ("compiler/targets/cpu/",),
    "cuda": ("runtime/cuda", "compiler/targets/triton/"),
    "torch": (),
}


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_its_target_knows_a_tool(path: Path):
    for name in imports(ast.parse(path.read_text())):
        tool = name.split(".")[0]
        if tool in OWNERS:
            assert module_name(path).startswith(OWNERS[tool] or "nobody"), (
                f"{module_name(path)} imports {name}"
            )


def words_of(tree: ast.AST) -> Iterator[str]:
    """Identifiers, and the words of strings that are not docstrings."""
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg"):
            if isinstance(identifier := getattr(node, field, None), str):
                yield identifier
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield from re.findall(r"\w+", node.value)


def names_an_op(word: str) -> str | None:
    """The op whose name is `word`, or some of the parts that underscores make of it."""
    parts = word.lower().strip("_").split("_")
    runs = {"_".join(parts[i:j]) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    return next(iter(sorted(runs & OP_NAMES)), None)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if folder_of(p) in ("dsl", "autograd", "compiler")], ids=module_name
)
def test_the_compiler_knows_no_op(path: Path):
    named = {word: op for word in words_of(ast.parse(path.read_text())) if (op := names_an_op(word))}
    assert not named, f"{module_name(path)} names ops of the library: {named}"


def test_a_named_op_is_found():
    source = 'def fuse_layer_norm(x):\n    """softmax"""\n    return match("a softmax of x")\n'
    found = {names_an_op(word) for word in words_of(ast.parse(source))}
    assert found - {None} == {"layer_norm", "softmax"}
    assert "tanh" not in OP_NAMES and "attention" in OP_NAMES


@pytest.mark.parametrize("path", [p for p in MODULES if folder_of(p) in ("kernels", "nn")], ids=module_name)
def test_prebuilt_ops_have_derived_gradients(path: Path):
    words = set(words_of(ast.parse(path.read_text())))
    assert not words & {"custom_gradient", "stop_gradient"}


@pytest.mark.parametrize("path", [p for p in MODULES if folder_of(p) in ("kernels", "nn")], ids=module_name)
def test_prebuilt_ops_name_no_target(path: Path):
    identifiers = {w.lower() for w in words_of(ast.parse(path.read_text()))}
    assert not identifiers & {"triton", "mlir", "cuda", "warp", "num_warps", "block_size", "llvm"}


# --- what is loaded when -----------------------------------------------------------------------------------


def run(code: str, **environment: str) -> str:
    """The output of a fresh interpreter."""
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_importing_the_library_loads_nothing_heavy():
    loaded = run(f"import sys, tilewright\nprint(*[m for m in {HEAVY!r} if m in sys.modules])")
    assert not loaded.split()


CALL = f"""
    import sys
    import numpy as np
    import tilewright as tw

    @tw.op
    def smooth(x: tw.Tile["... d"], w: tw.Tile["d"]):
        return tw.kernels.softmax(x * w) - tw.mean(x, "d")

    x = np.linspace(0, 1, 21, dtype=np.float32).reshape(3, 7)
    y = smooth(x, x[0])
    assert abs(float(y.sum()) - (3 - x.sum() / 7 * 7)) < 1e-4, y
    print(*[m for m in {COMPILERS!r} if m in sys.modules])
"""


def test_a_cached_op_runs_without_a_compiler(tmp_path: Path):
    cold = run(CALL, TILEWRIGHT_CACHE_DIR=str(tmp_path)).split()
    assert "torch_mlir" in cold or "mlir" in cold, "the first call compiles"
    assert not run(CALL, TILEWRIGHT_CACHE_DIR=str(tmp_path)).split()


BACKWARD = f"""
    import sys
    import numpy as np
    import tilewright as tw

    @tw.op
    def curved(x: tw.Tile["... d"], w: tw.Tile["d"]):
        return tw.tanh(1 + tw.kernels.softmax(x * w)) * tw.mean(tw.asinh(x), "d")

    x = np.linspace(0, 1, 21, dtype=np.float32).reshape(3, 7)
    a, w = tw.tensor(x, requires_grad=True), tw.tensor(x[0], requires_grad=True)
    (first,) = tw.grad(curved(a, w).sum(), (w,), create_graph=True)
    (first * first).sum().backward()
    curved.vjp(x, x[0], x)
    curved.jvp(x, x[0], x, x[0])
    print(*[m for m in {COMPILERS!r} if m in sys.modules])
"""


def test_a_cached_backward_runs_without_a_compiler_and_derives_nothing(tmp_path: Path):
    cold = run(BACKWARD, TILEWRIGHT_CACHE_DIR=str(tmp_path)).split()
    assert "sympy" in cold, "the first backward derives"
    assert not run(BACKWARD, TILEWRIGHT_CACHE_DIR=str(tmp_path)).split()


def test_the_library_imports_little_more_than_numpy():
    """What makes an import slow is counted, not timed: it was 120 modules of ours and 37 others."""
    code = (
        "import sys, numpy\nbefore = set(sys.modules)\nimport tilewright\nprint(*set(sys.modules) - before)"
    )
    loaded = run(code).split()
    ours = [name for name in loaded if name.partition(".")[0] == "tilewright"]
    others = {name.partition(".")[0] for name in loaded if name not in ours}
    assert others <= sys.stdlib_module_names | {"numpy"}, (
        "besides NumPy and the standard library nothing is loaded"
    )
    assert not others & {"asyncio", "concurrent", "http", "multiprocessing", "sqlite3", "unittest", "xml"}
    assert len(ours) < 160
    assert len(others) < 60
