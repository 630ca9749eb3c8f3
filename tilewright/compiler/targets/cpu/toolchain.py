"""From MLIR text to machine code, which `loading` makes callable.

    MLIR text --(MLIR bindings: PIPELINE, translate)--> LLVM IR --(llvmlite: O3, code generation)--> object

LLVM IR crosses from the MLIR bindings to llvmlite as text because llvmlite, unlike the bindings, lets the
caller choose CPU and features and knows every architecture it was built with. `prepare` respells what a newer
LLVM writes and an older one does not read; the bindings' own code generator is the fallback for this machine.
"""

from __future__ import annotations

import math
import re
import struct
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tilewright.compiler.targets.cpu.builder import Type, float_bits
from tilewright.errors import InternalError, TargetError

# Only conversions: LLVM's own optimiser simplifies better than MLIR's canonicaliser and runs anyway.
PIPELINE = (
    "builtin.module(convert-scf-to-cf,convert-vector-to-llvm,convert-math-to-llvm,convert-arith-to-llvm,"
    "convert-cf-to-llvm,reconcile-unrealized-casts)"
)

# What plain code gains from.
PLAIN_PASSES = (
    "simplify_cfg", "sroa", "instruction_combine", "loop_rotate", "simplify_cfg", "instruction_combine",
    "loop_unroll", "new_gvn", "dead_store_elimination", "simplify_cfg", "aggressive_dce",
)  # fmt: skip

FREE_MASKS = 512  # bits of the vectors that are read under a mask at no cost: AVX-512's
PAGE = 4096  # bytes
WIDEST = 16  # elements of a vector, at most, but for those of narrow integers


@dataclass(frozen=True)
class CpuTarget:
    """What code is generated for: an LLVM triple, CPU and features, and the width of a vector register."""

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int

    def lanes(self, kind: str) -> int:
        """How many elements of a kind fill one vector register (`f32`: 16 with AVX-512)."""
        return self.vector_bits // Type(kind).bits

    @property
    def is_x86(self) -> bool:
        return self.triple.startswith(("x86_64", "i386", "i686"))

    @property
    def has_avx512(self) -> bool:
        return self.is_x86 and self.vector_bits == 512

    @property
    def masks_are_integers(self) -> bool:
        """Whether vectors of 32 and 64 bits an element are read and written under integers: AVX2 has no
        registers for masks, and reads nothing narrower under one.
        """
        return self.is_x86 and self.vector_bits == 256

    @property
    def lead(self) -> int:
        """How many bytes before it is read what streams by is asked for, where its rows are long.

        A page with AVX-512: the machine looks no further (Zen 5). With AVX2 asking so early takes a sixth of
        the speed of reading one stream, and asking half a kilobyte before nothing (Zen 3).
        """
        return PAGE if self.has_avx512 or not self.is_x86 else PAGE // 8

    @property
    def has_bf16_products(self) -> bool:
        """Whether an instruction adds products of bfloat16 numbers to float32 ones."""
        return self.has_avx512 and "+avx512bf16" in self.features.split(",")

    @property
    def has_i16_products(self) -> bool:
        """Whether an instruction adds products of 16-bit integers to 32-bit ones (VNNI)."""
        return self.has_avx512 and "+avx512vnni" in self.features.split(",")

    @property
    def is_host(self) -> bool:
        """Whether this machine can run the code."""
        return _architecture(self.triple) == _architecture(host().triple)

    def function_attributes(self) -> tuple[tuple[str, str], ...]:
        """LLVM function attributes: nothing unwinds, whole registers are used.

        CPU and features are told to the code generator (`_machine`): a kernel's text names no machine.
        """
        pairs = [("nounwind", "")]
        if self.is_x86:
            pairs += [("prefer-vector-width", str(self.vector_bits)), ("min-legal-vector-width", "0")]
        return tuple(pairs)

    @property
    def registers(self) -> int:
        """Vector registers: 32 with AVX-512 and NEON, 16 with AVX2."""
        return 32 if self.vector_bits == 512 or not self.is_x86 else 16


def _architecture(triple: str) -> str:
    name = triple.split("-")[0]
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(name, name)


# ---- the machine ----------------------------------------


@dataclass(frozen=True)
class Caches:
    """Sizes in bytes of the data caches that one core sees, and the lines of a set of the first."""

    l1d: int = 32 << 10
    l1d_ways: int = 8
    l2: int = 1 << 20
    l3: int = 8 << 20
    line: int = 64


@cache
def llvm_bindings() -> Any:
    """llvmlite's binding module with every target it was built with."""
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise TargetError(
            f"the CPU target needs llvmlite to build and load kernels ({error}): pip install llvmlite"
        ) from error
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    llvm.initialize_native_asmparser()
    return llvm


@cache
def host() -> CpuTarget:
    """This machine's widest target: AVX-512, else AVX2, else baseline; NEON on Arm."""
    llvm = llvm_bindings()
    triple, cpu = llvm.get_process_triple(), llvm.get_host_cpu_name()
    features = dict(llvm.get_host_cpu_features())
    if _architecture(triple) == "aarch64":
        return CpuTarget("neon", triple, cpu, "+neon", 128)
    if _architecture(triple) != "x86_64":
        return CpuTarget("generic", triple, cpu, "", 128)
    listed = ",".join(_feature_list(features))
    if all(features.get(f"avx512{part}") for part in ("f", "bw", "dq", "vl")):
        return CpuTarget("avx512", _x86_triple(), cpu, listed, 512)
    if features.get("avx2") and features.get("fma"):
        return CpuTarget("avx2", triple, cpu, listed, 256)
    return CpuTarget("sse", triple, cpu, listed, 128)


def _feature_list(features: dict[str, bool]) -> list[str]:
    """What the machine has, and what matters that its CPU's name promises and a virtual machine hides."""
    vital = re.compile(r"avx512\w*|avx2?|fma|f16c|bmi2?|lzcnt|popcnt|sse4\.[12]|movbe|gfni|vaes|adx")
    shown = {name: on for name, on in features.items() if on or vital.fullmatch(name)}
    return [f"{'+' if on else '-'}{name}" for name, on in sorted(shown.items())]


def avx512() -> CpuTarget:
    """x86-64-v4 (Skylake servers and later; from Zen 4 on): AVX-512 and 32 registers."""
    return CpuTarget("avx512", _x86_triple(), "x86-64-v4", "", 512)


def avx2() -> CpuTarget:
    """x86-64-v3 (Haswell and later; Zen 1 to 3): AVX2, FMA, F16C and 16 registers."""
    return CpuTarget("avx2", _x86_triple(), "x86-64-v3", "", 256)


def _x86_triple() -> str:
    return host().triple if _architecture(host().triple) == "x86_64" else "x86_64-unknown-linux-gnu"


def neon() -> CpuTarget:
    """64-bit Arm with NEON (ARMv8.0), to be run elsewhere unless this machine is one."""
    triple = host().triple if _architecture(host().triple) == "aarch64" else "aarch64-unknown-linux-gnu"
    return CpuTarget("neon", triple, "generic", "+neon", 128)


@cache
def caches() -> Caches:
    """Cache sizes from sysfs; a plain desktop's where that is silent."""
    found: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            kind, level, size, line, ways = (
                (index / name).read_text().strip()
                for name in ("type", "level", "size", "coherency_line_size", "ways_of_associativity")
            )
            if kind != "Instruction":
                found |= {"l1d_ways": int(ways)} if level == "1" else {}
                found[f"l{level}d" if level == "1" else f"l{level}"] = _size(size)
                found["line"] = int(line)
        except (OSError, ValueError):
            continue
    return Caches(
        **{name: value for name, value in found.items() if name in Caches.__annotations__ and value}
    )


def _size(text: str) -> int:
    units = {"K": 10, "M": 20, "G": 30}
    if text[-1:] in units:
        return int(text[:-1]) << units[text[-1]]
    return int(text)


# ---- compiling ----------------------------------------


@cache
def _mlir() -> tuple[Any, Any, Any]:
    """Bindings, one context and one pass manager for the life of the process: making them costs 20 ms.

    The context has no threads of its own: a kernel is too small for them, and a fork would lose them.
    """
    from tilewright.compiler.targets.cpu.bindings import bindings

    found = bindings()
    context = found.ir.Context()
    context.enable_multithreading(False)
    with context:
        manager = found.passmanager.PassManager.parse(PIPELINE)
    return found, context, manager


def _lowered(text: str) -> Any:
    """The module in the LLVM dialect."""
    found, context, manager = _mlir()
    with context:
        try:
            module = found.ir.Module.parse(text)
        except found.ir.MLIRError as error:
            raise InternalError(f"the generated MLIR does not parse: {error}\n{text}") from error
        try:
            manager.run(module.operation)
        except found.ir.MLIRError as error:
            raise InternalError(f"the generated MLIR does not lower: {error}\n{text}") from error
    return module


def llvm_ir(text: str) -> str:
    """The LLVM IR of a module of MLIR text, before optimisation."""
    found, context, _ = _mlir()
    if not hasattr(found.llvm, "translate_module_to_llvmir"):
        raise _UnreadableIR(
            f"the MLIR bindings {found.name!r} are too old to give LLVM IR: pip install -U torch-mlir"
        )
    module = _lowered(text)
    with context:
        return prepare(found.llvm.translate_module_to_llvmir(module.operation))


class _UnreadableIR(TargetError):
    """LLVM IR does not get from the bindings to llvmlite: one of them is too old."""


_INTRINSIC = re.compile(r"^(declare .*@llvm\.[^\n]*\)) #\d+$", re.MULTILINE)
_GROUP = re.compile(r"^attributes #(\d+) = \{[^\n]*\n", re.MULTILINE)
_NEW_FLOAT = re.compile(
    r"(?<=[ \[(])(?:(?P<sign>[+-])(?P<special>qnan|inf|s?nan\(0x[0-9A-Fa-f]+\))|f0x(?P<bits>[0-9A-Fa-f]+)"
    r"|(?P<decimal>-?\d+\.\d+e[+-]\d+))(?=[,)\s\]>]|$)"
)
_FLOAT_NAME = re.compile(r"\b(half|bfloat|float|double)\b")
_KINDS = {"double": "f64", "float": "f32", "half": "f16", "bfloat": "bf16"}


def prepare(ir: str) -> str:
    """LLVM IR text as an older LLVM reads it.

    Intrinsics lose their attributes (the reader knows them, but not the newest spellings). Floats become the
    hexadecimal of all versions: LLVM 23 writes `+inf`, `-qnan`, `f0x3EA2F983`, and `float 9.2e-01` for the
    nearest float, where before a decimal had to be exact.
    """
    ir = _INTRINSIC.sub(r"\1", ir)
    used = set(re.findall(r"^(?!attributes)[^\n]*#(\d+)", ir, re.MULTILINE))
    ir = _GROUP.sub(lambda group: group[0] if group[1] in used else "", ir)
    return "\n".join(_NEW_FLOAT.sub(_old_float, line) for line in ir.split("\n"))


def _old_float(match: re.Match[str]) -> str:
    """The old spelling: a `float` is written as the bits of the double of the same value."""
    kind = _KINDS[
        _FLOAT_NAME.findall(match.string, 0, match.start())[-1]
    ]  # the type stands before its operand
    if match["bits"]:
        bits = int(match["bits"], 16)
    elif match["decimal"]:
        bits = float_bits(float(match["decimal"]), kind)
    else:
        magnitude = math.inf if match["special"] == "inf" else math.nan
        bits = float_bits(math.copysign(magnitude, -1 if match["sign"] == "-" else 1), kind)
    if kind == "f32":
        (value,) = struct.unpack("<f", struct.pack("<I", bits))
        bits = float_bits(value, "f64")
    prefix, digits = {"f16": ("0xH", 4), "bf16": ("0xR", 4)}.get(kind, ("0x", 16))
    return f"{prefix}{bits:0{digits}X}"


def _machine(target: CpuTarget) -> Any:
    llvm = llvm_bindings()
    try:
        backend = llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        raise TargetError(
            f"llvmlite was built without a code generator for {target.triple}: {error}"
        ) from error
    return backend.create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )


def _optimised(text: str, target: CpuTarget, plain: bool) -> tuple[Any, Any]:
    """The optimised LLVM module and the machine it was optimised for."""
    llvm = llvm_bindings()
    machine = _machine(target)
    ir = llvm_ir(text)
    try:
        module = llvm.parse_assembly(ir)
    except RuntimeError as error:
        version = ".".join(map(str, llvm.llvm_version_info))
        raise _UnreadableIR(
            f"llvmlite's LLVM {version} does not read the LLVM IR of the MLIR bindings ({error}); "
            "upgrade: pip install -U llvmlite"
        ) from error
    module.triple, module.data_layout = target.triple, str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    # Loops arrive vectorised as the schedule wants them; vectorising their scalar tails again costs time.
    options.loop_vectorization = options.slp_vectorization = False
    options.loop_interleaving = False
    builder = llvm.create_pass_builder(machine, options)
    manager = (_few_passes(llvm) if plain else None) or builder.getModulePassManager()
    manager.run(module, builder)
    _dispose(manager)
    return module, machine


def _few_passes(llvm: Any) -> Any | None:
    """Those that plain code gains from, in a quarter of the time of all; None where llvmlite lacks any."""
    added = [getattr(llvm.ModulePassManager, f"add_{name}_pass", None) for name in PLAIN_PASSES]
    if not all(added):
        return None
    manager = llvm.create_new_module_pass_manager()
    for name in PLAIN_PASSES:
        getattr(manager, f"add_{name}_pass")()
    return manager


def _dispose(manager: Any) -> None:
    """Frees a pass manager: about 100 kB for each kernel that is compiled.

    llvmlite's pass managers inherit an empty `_dispose` that hides their own (as of 0.50): neither `close`
    nor the garbage collector frees anything.
    """
    from llvmlite.binding.ffi import ObjectRef

    if type(manager)._dispose is ObjectRef._dispose:
        hidden = getattr(super(ObjectRef, manager), "_dispose", None)
        if hidden is not None:
            hidden()
    manager.close()


def compile_object(text: str, target: CpuTarget, plain: bool = False) -> bytes:
    """MLIR text to the bytes of a relocatable object file. plain: few passes make good code of it."""
    try:
        module, machine = _optimised(text, target, plain)
    except _UnreadableIR:
        if target != host():
            raise
        return _compile_in_bindings(text)
    return machine.emit_object(module)


def _compile_in_bindings(text: str) -> bytes:
    """The object as the bindings' own LLVM makes it for this machine."""
    found, context, _ = _mlir()
    module = _lowered(text)
    with context, tempfile.TemporaryDirectory() as folder:
        engine = found.execution_engine.ExecutionEngine(module, opt_level=3, enable_object_dump=True)
        names = re.findall(r"^  llvm\.func @(\w+)\(.*\{$", text, re.MULTILINE)
        for name in names:
            engine.raw_lookup(name)  # compiled on demand
        path = Path(folder) / "kernel.o"
        engine.dump_to_object_file(str(path))
        return path.read_bytes()


def assembly(text: str, target: CpuTarget, plain: bool = False) -> str:
    """MLIR text to the target's assembly text, for reading and for tests."""
    module, machine = _optimised(text, target, plain)
    return machine.emit_assembly(module)


def optimised_ir(text: str, target: CpuTarget, plain: bool = False) -> str:
    """MLIR text to optimised LLVM IR text, for reading."""
    return str(_optimised(text, target, plain)[0])
