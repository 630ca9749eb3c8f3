"""Ahead-of-time compilation of generated Triton source: text in, GPU binary out, no GPU and no torch.

    artefact = compile_source(
        source, "add", signature={"x": "*fp32", "n": "i32", "BLOCK": "constexpr"},
        constexprs={"BLOCK": 1024}, target="cuda:90", divisible_by_16=("x",), options={"num_warps": 4},
    )
    artefact.binary            # a cubin (CUDA) or an hsaco (HIP)
    artefact.texts["ptx"]      # and "ttir", "ttgir", "llir"; "amdgcn" on HIP
    artefact.sections()        # plain bytes for the build cache; Artefact.from_sections reads them back

Triton keeps a cache of its own. It is not relied upon: every compilation here sees an empty private folder.

Threads may compile at once. Reading the source is done by one at a time (it is Python's work, so nothing is
lost); the compilers of MLIR, LLVM and the GPU's maker run side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import re
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tilewright.compiler.targets.triton.sources import (
    LANGUAGE,
    PARSER,
    import_triton,
    kernel_function,
    load_functions,
)
from tilewright.errors import InternalError, ResourceError, TargetError

OLDEST_TRITON = (3, 6)
TEXT_STAGES = ("ttir", "ttgir", "llir", "ptx", "amdgcn")
SECTION_FORMAT = 1

# Contraction is stated here because Triton's own default changes between versions.
DEFAULT_OPTIONS: dict[str, Any] = {"num_warps": 4, "num_stages": 2, "enable_fp_fusion": True}


@dataclass(frozen=True)
class Target:
    """One GPU architecture: `cuda:90` is compute capability 9.0, `hip:gfx942` an AMD processor name."""

    backend: str
    architecture: int | str
    warp_size: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read `"cuda:90"` or `"hip:gfx942"`.

        >>> Target.parse("cuda:90")
        Target(backend='cuda', architecture=90, warp_size=32)
        """
        backend, _, architecture = text.partition(":")
        if backend == "cuda" and architecture.isdigit():
            return cls("cuda", int(architecture), 32)
        if backend == "hip" and re.fullmatch(r"gfx\d+[0-9a-f]{2}", architecture):
            generation = int(architecture[3:-2])
            return cls("hip", architecture, 32 if generation >= 10 else 64)
        raise TargetError(
            f'unknown target {text!r}; write "cuda:<compute capability without the dot>", such as "cuda:90", '
            'or "hip:<processor>", such as "hip:gfx942"'
        )

    def __str__(self) -> str:
        return f"{self.backend}:{self.architecture}"

    @property
    def shared_memory_limit(self) -> int:
        """Most bytes of shared memory that one block can have (with the opt-in that the driver makes)."""
        if self.backend == "hip":
            return 160 * 1024 if self.architecture == "gfx950" else 64 * 1024
        known = {70: 96, 72: 96, 75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227}
        kibibytes = known.get(int(self.architecture), 99)
        return kibibytes * 1024

    @property
    def register_limit(self) -> int:
        """Most registers of 32 bits that one block can have."""
        return 128 * 1024 if self.backend == "hip" else 64 * 1024

    @property
    def thread_limit(self) -> int:
        """Most threads of one block."""
        return 1024


@dataclass(frozen=True)
class Artefact:
    """A compiled kernel and all that its launch needs; plain data, independent of Triton."""

    target: str
    entry: str
    """The kernel's symbol in the binary."""
    binary: bytes
    binary_kind: str
    """`"cubin"` or `"hsaco"`."""
    texts: dict[str, str]
    """The stages' texts by name: ttir, ttgir, llir, and ptx or amdgcn."""
    signature: tuple[tuple[str, str], ...]
    """Run-time parameters in order: name and Triton type. Constexprs are gone."""
    hidden_parameters: int
    """Pointer parameters that Triton appends (global scratch, then profile scratch)."""
    num_warps: int
    """Warps of a block as compiled; warp specialisation can make it more than was asked for."""
    num_ctas: int
    warp_size: int
    shared_bytes: int
    registers: int | None = None
    """Registers of a thread, where the binary says so."""
    local_bytes: int | None = None
    """Bytes of a thread's stack frame; not zero means that registers were spilled."""
    global_scratch_bytes: int = 0
    """Bytes for every program of the grid."""
    global_scratch_alignment: int = 1
    profile_scratch_bytes: int = 0
    profile_scratch_alignment: int = 1
    cooperative: bool = False
    programmatic_launch: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    triton_version: str = ""

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.num_warps * self.warp_size

    def sections(self) -> dict[str, bytes]:
        """Everything as named byte strings: `metadata` (JSON), `binary`, and `text.<stage>` for each text."""
        metadata = {
            entry.name: getattr(self, entry.name)
            for entry in dataclasses.fields(self)
            if entry.name not in ("binary", "texts")
        }
        metadata["format"] = SECTION_FORMAT
        sections = {"metadata": json.dumps(metadata, sort_keys=True).encode(), "binary": self.binary}
        return sections | {f"text.{name}": text.encode() for name, text in self.texts.items()}

    @classmethod
    def from_sections(cls, sections: Mapping[str, bytes]) -> Artefact:
        """Read back what `sections` wrote; `ValueError` when it is anything else (a cache then rebuilds)."""
        try:
            metadata = json.loads(sections["metadata"])
            binary = bytes(sections["binary"])
            version = metadata.pop("format")
        except (KeyError, TypeError, UnicodeDecodeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"not the sections of a compiled kernel: {error}") from error
        expected = {entry.name for entry in dataclasses.fields(cls)} - {"binary", "texts"}
        if version != SECTION_FORMAT or set(metadata) != expected:
            raise ValueError("these sections were written by another version")
        metadata["signature"] = tuple((name, kind) for name, kind in metadata["signature"])
        prefix = "text."
        texts = {
            name.removeprefix(prefix): bytes(text).decode()
            for name, text in sections.items()
            if name.startswith(prefix)
        }
        return cls(binary=binary, texts=texts, **metadata)


def compiler_version() -> str:
    """What a build cache must key on besides the source: Triton's version."""
    triton = import_triton()
    return f"triton {triton.__version__}"


def compile_source(
    source: str,
    kernel_name: str,
    *,
    signature: Mapping[str, str],
    target: str | Target,
    constexprs: Mapping[str, Any] | None = None,
    divisible_by_16: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    file_name: str | None = None,
) -> Artefact:
    """Compile one kernel of a module text for one GPU architecture.

    source: a module with `import triton`, `import triton.language as tl` and `@triton.jit` functions.
    signature: every parameter in order, name to Triton type: `"*fp32"`, `"*bf16"`, `"*i1"`, `"i32"`, `"i64"`,
        `"fp32"`, `"fp64"`, `"constexpr"`. A parameter named in `constexprs` may be left out.
    constexprs: values of the constexpr parameters.
    divisible_by_16: pointers whose address, and integers whose value, is known to be a multiple of 16.
    options: Triton's own (`num_warps`, `num_stages`, `num_ctas`, `maxnreg`, `enable_fp_fusion`,
        `waves_per_eu`, …), over `DEFAULT_OPTIONS`; None means Triton's default.
    file_name: shown by profilers as the kernel's file; line information is only kept when it is given.

    Raises `ResourceError` when the architecture has not enough shared memory, threads or registers, and
    `TargetError` for everything else that Triton or its assembler refuses.
    """
    target = Target.parse(target) if isinstance(target, str) else target
    triton = import_triton()
    _require_version(triton.__version__)
    _require_compiling()
    with LANGUAGE.shared(), _SETTINGS(line_information=file_name is not None):
        function = kernel_function(load_functions(source, file_name=file_name), kernel_name)
        ast_source = _ast_source(function, signature, constexprs or {}, divisible_by_16)
        chosen = _check_options(target, {**DEFAULT_OPTIONS, **(options or {})})
        compiled = _compile(ast_source, target, chosen, kernel_name)
    artefact = _artefact(compiled, target, ast_source.signature, chosen, triton.__version__)
    _check_resources(artefact, target, kernel_name)
    return artefact


def _require_compiling() -> None:
    """Refuse a process in which Triton was imported for interpretation: its library cannot be compiled."""
    import triton.language as tl

    if type(tl.sum).__name__ == "InterpretedFunction":
        raise TargetError(
            "this process imported Triton with TRITON_INTERPRET=1, so nothing can be compiled in it; "
            "unset the variable (`op.check` runs Triton's interpreter without it)"
        )


def _require_version(version: str) -> None:
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        raise TargetError(
            f'triton {version} is too old; install {oldest} or newer: `pip install -U "triton"`'
        )


@functools.cache
def _source_kind() -> type:
    """Triton's `ASTSource`, whose text is parsed by one thread at a time."""
    from triton.compiler import ASTSource

    class Source(ASTSource):
        def hash(self) -> str:
            with PARSER:
                return super().hash()

        def make_ir(self, *arguments: Any, **keywords: Any) -> Any:
            with PARSER:
                return super().make_ir(*arguments, **keywords)

    return Source


def _ast_source(
    function: Any, signature: Mapping[str, str], constexprs: Mapping[str, Any], divisible: Sequence[str]
) -> Any:
    names = list(function.arg_names)
    unknown = (set(signature) | set(constexprs) | set(divisible)) - set(names)
    if unknown:
        raise InternalError(
            f"kernel {function.__name__!r} has no parameters {sorted(unknown)}; it has {names}"
        )
    missing = [name for name in names if name not in signature and name not in constexprs]
    if missing:
        raise InternalError(f"kernel {function.__name__!r}: no type was given for the parameters {missing}")
    kinds = {name: "constexpr" if name in constexprs else signature[name] for name in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in divisible}
    return _source_kind()(function, kinds, dict(constexprs), attributes)


def _check_options(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """Refuse an option that this Triton would silently ignore, and drop those left at None."""
    from triton.compiler.compiler import make_backend

    chosen = {name: value for name, value in options.items() if value is not None}
    try:
        known: Any = make_backend(_gpu_target(target)).parse_options(dict(chosen))
    except Exception as error:
        raise TargetError(f"Triton refuses these options for {target}: {error}; given: {chosen}") from error
    unknown = sorted(name for name in chosen if not hasattr(known, name))
    if unknown:
        names = ", ".join(sorted(entry.name for entry in dataclasses.fields(known)))
        raise TargetError(f"Triton has no option {', '.join(unknown)} for {target}; it has {names}")
    return chosen


def _gpu_target(target: Target) -> Any:
    from triton.backends.compiler import GPUTarget

    return GPUTarget(target.backend, target.architecture, target.warp_size)


def _compile(ast_source: Any, target: Target, options: dict[str, Any], kernel_name: str) -> Any:
    import triton
    from triton.runtime.errors import OutOfResources

    try:
        return triton.compile(ast_source, target=_gpu_target(target), options=dict(options))
    except OutOfResources as error:
        raise ResourceError(f"kernel {kernel_name!r} for {target}: {error}") from error
    except Exception as error:
        message = f"Triton cannot compile kernel {kernel_name!r} for {target}: {_first_cause(error)}"
        kind = ResourceError if _TOO_MUCH.search(str(error)) else TargetError
        raise kind(message) from error


# How the assemblers of both makers word that a kernel is too large.
_TOO_MUCH = re.compile(
    r"uses too much|too many resources|ran out of registers|exceeds? .*limit", re.IGNORECASE
)


def _first_cause(error: BaseException) -> str:
    """The innermost message of a chain: where Triton wraps an error, the reason stands inside."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".strip()


class _Settings:
    """Triton's settings while compilations run: an empty folder as its cache, and line tables or none.

    Settings are the process's. Compilations that want the same ones share them, from the first that enters to
    the last that leaves; those that want others wait. Without line tables, which hold temporary paths, a
    binary depends on the source alone.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._users = 0
        self._line_information = False
        self._folder = ""
        self._before: list[tuple[dict[str, Any], dict[str, Any]]] = []

    @contextlib.contextmanager
    def __call__(self, *, line_information: bool) -> Iterator[None]:
        self._enter(line_information)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, line_information: bool) -> None:
        with self._condition:
            self._condition.wait_for(lambda: not self._users or self._line_information == line_information)
            if not self._users:
                self._change(line_information)
            self._users += 1

    def _leave(self) -> None:
        with self._condition:
            self._users -= 1
            if not self._users:
                self._put_back()
            self._condition.notify_all()

    def _change(self, line_information: bool) -> None:
        from triton import knobs
        from triton.runtime.cache import FileCacheManager

        self._line_information = line_information
        self._folder = tempfile.mkdtemp(prefix="tilewright-triton-")
        # Set beneath Triton's descriptors: setting through them would also change the environment.
        settings = (vars(knobs.cache), vars(knobs.compilation))
        self._before = [(setting, dict(setting)) for setting in settings]
        vars(knobs.cache).update(dir=self._folder, manager_class=FileCacheManager)
        vars(knobs.compilation).update(disable_line_info=not line_information)

    def _put_back(self) -> None:
        for setting, before in self._before:
            setting.clear()
            setting.update(before)
        shutil.rmtree(self._folder, ignore_errors=True)


_SETTINGS = _Settings()


def _artefact(
    compiled: Any, target: Target, signature: Mapping[str, str], options: dict[str, Any], version: str
) -> Artefact:
    metadata = compiled.metadata._asdict()
    texts = {stage: compiled.asm[stage] for stage in TEXT_STAGES if stage in compiled.asm}
    binary_kind = "cubin" if target.backend == "cuda" else "hsaco"
    binary = compiled.asm[binary_kind]
    run_time = tuple((name, kind) for name, kind in signature.items() if kind != "constexpr")
    registers, local_bytes = _usage(binary, texts)
    return Artefact(
        target=str(target),
        entry=metadata["name"],
        binary=binary,
        binary_kind=binary_kind,
        texts=texts,
        signature=run_time,
        hidden_parameters=_parameter_count(texts, metadata["name"]) - len(run_time),
        num_warps=metadata["num_warps"],
        num_ctas=metadata.get("num_ctas", 1),
        warp_size=metadata.get("warp_size", target.warp_size),
        shared_bytes=metadata["shared"] or 0,
        registers=registers,
        local_bytes=local_bytes,
        global_scratch_bytes=metadata.get("global_scratch_size") or 0,
        global_scratch_alignment=metadata.get("global_scratch_align") or 1,
        profile_scratch_bytes=metadata.get("profile_scratch_size") or 0,
        profile_scratch_alignment=metadata.get("profile_scratch_align") or 1,
        cooperative=bool(metadata.get("launch_cooperative_grid", False)),
        programmatic_launch=bool(metadata.get("launch_pdl", False)),
        options=options,
        triton_version=version,
    )


def _check_resources(artefact: Artefact, target: Target, kernel_name: str) -> None:
    if artefact.shared_bytes > target.shared_memory_limit:
        raise ResourceError(
            f"kernel {kernel_name!r} needs {artefact.shared_bytes} bytes of shared memory, but a block of "
            f"{target} has {target.shared_memory_limit}. Use a smaller tile or fewer stages"
        )
    if artefact.threads > target.thread_limit:
        raise ResourceError(
            f"kernel {kernel_name!r} asks for {artefact.num_warps} warps of {artefact.warp_size} threads; a "
            f"block of {target} has at most {target.thread_limit} threads"
        )


def _parameter_count(texts: Mapping[str, str], entry: str) -> int:
    """Parameters that the compiled kernel takes, counted in its assembly: versions of Triton differ."""
    if "ptx" in texts:
        declaration = re.search(rf"\.entry\s+{re.escape(entry)}\s*\((.*?)\)", texts["ptx"], re.DOTALL)
        return len(re.findall(r"\.param\b", declaration.group(1))) if declaration else 0
    # `.args:` of the metadata lists the kernel's own arguments first, then those of the runtime ("hidden_*").
    arguments = re.search(r"\.args:\n(.*?)\n\s{4}\.\w+:", texts["amdgcn"], re.DOTALL)
    kinds = re.findall(r"\.value_kind:\s+(\w+)", arguments.group(1)) if arguments else []
    return sum(not kind.startswith("hidden_") for kind in kinds)


def _usage(binary: bytes, texts: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Registers and stack bytes of a thread."""
    if "amdgcn" in texts:
        registers = re.search(r"\.vgpr_count:\s+(\d+)", texts["amdgcn"])
        frame = re.search(r"\.private_segment_fixed_size:\s+(\d+)", texts["amdgcn"])
        return (int(registers[1]) if registers else None, int(frame[1]) if frame else None)
    try:
        return cubin_usage(binary)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None, None


def cubin_usage(cubin: bytes) -> tuple[int | None, int | None]:
    """Registers and stack bytes of a thread, read from a cubin's ELF section `.nv.info`.

    The section is a list of attributes; 0x2f holds a register count and 0x11 a frame size, each as a pair of
    symbol index and number. The largest counts when a kernel calls functions that were not inlined.
    """
    register_attribute, frame_attribute = 0x2F, 0x11
    if cubin[:4] != b"\x7fELF":
        return None, None
    found: dict[int, int] = {}
    for attribute, number in _information(_elf_section(cubin, ".nv.info")):
        found[attribute] = max(number, found.get(attribute, 0))
    return found.get(register_attribute), found.get(frame_attribute)


def _elf_section(image: bytes, wanted: str) -> bytes:
    (table,) = struct.unpack_from("<Q", image, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", image, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", image, table + index * entry_size) for index in range(count)]
    names_at = headers[names_index][4]
    for name_offset, _, _, _, offset, size in headers:
        start = names_at + name_offset
        if image[start : image.index(b"\0", start)].decode() == wanted:
            return image[offset : offset + size]
    return b""


def _information(section: bytes) -> Iterator[tuple[int, int]]:
    """Attribute and number of every (symbol, number) pair; other forms are stepped over."""
    sized, pair_bytes = 0x04, 8
    position = 0
    while position + 4 <= len(section):
        form, attribute, length = struct.unpack_from("<BBH", section, position)
        position += 4
        if form != sized:
            continue
        if length == pair_bytes:
            yield attribute, struct.unpack_from("<II", section, position)[1]
        position += length
