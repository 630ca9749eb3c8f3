"""Algebra of expressions: an exact zero test, and the form that a person would write.

    Polynomials.is_zero(node)     expands everything; decides, never emits
    collect(roots, given)         factors, cancels, recognises what is known; emits
"""

from tilewright.dsl.algebra.collect import Collector, Emitter, collect
from tilewright.dsl.algebra.polynomial import Polynomials

__all__ = ["Collector", "Emitter", "Polynomials", "collect"]
