"""How exactly float32 numbers are multiplied by a GPU's tile units, and elementary functions of them computed
by the CPU: one choice each for the process.
"""

from __future__ import annotations

from tilewright.errors import ArgumentError

FLOAT32, TF32X3, TF32 = PRECISIONS = ("float32", "tf32x3", "tf32")
EXACT, FAST = ACCURACIES = ("exact", "fast")

_chosen = FLOAT32
_accuracy = EXACT


def get_matmul_precision() -> str:
    """What `set_matmul_precision` chose; "float32" before."""
    return _chosen


def set_matmul_precision(precision: str) -> None:
    """Choose how later launches of contractions on a GPU multiply float32 operands.

    | precision | bits of a factor | products |
    |---|---|---|
    | "float32" (at first) | 24 | exact but for the rounding of their sums |
    | "tf32x3" | 24, in two parts | three by the tensor cores; 2^-22 of a product is lost |
    | "tf32" | 11 | one by the tensor cores; 2^-10 of a product is lost |

    AMD's units take bfloat16 parts instead, three products for "tf32" and six for "tf32x3", which lose less.
    Sums are float32 throughout. Half-precision operands, other types and the CPU are not concerned: there
    products are exact. Of float8 operands products are exact in any case; anything but "float32" lets tensor
    cores of compute capability 8.9, 9 and 12 multiply them as they lie, which add up blocks of them with 14
    bits or so (those of 10 add in float32, and are used always). Raises `ArgumentError` for another word.
    """
    global _chosen
    if precision not in PRECISIONS:
        known = ", ".join(f'"{name}"' for name in PRECISIONS)
        raise ArgumentError(f"set_matmul_precision({precision!r}): write one of {known}")
    _chosen = precision


def get_math_accuracy() -> str:
    """What `set_math_accuracy` chose; "exact" before."""
    return _accuracy


def set_math_accuracy(accuracy: str) -> None:
    """Choose how later launches on the CPU compute elementary functions of float32.

    "exact" (at first): within 2 units of the last place, whatever the argument. "fast": those that are
    computed in float64 for it (tan, sinh, cosh, the inverse trigonometric and hyperbolic functions, erfc,
    powers) are computed in float32, up to three times faster; the table of functions in docs/language.md says
    how far off each may be then. Other functions, float64 and GPUs are not concerned; special values are the
    same. Raises `ArgumentError` for another word.
    """
    global _accuracy
    if accuracy not in ACCURACIES:
        known = ", ".join(f'"{name}"' for name in ACCURACIES)
        raise ArgumentError(f"set_math_accuracy({accuracy!r}): write one of {known}")
    _accuracy = accuracy
