"""Algebra of expressions: an exact zero test, and the form that a person would write.

Polynomials.is_zero(node)     expands everything; decides, never emits
collect(roots, given)         factors, cancels, recognises what is known; emits
"""

from tilewright.dsl.algebra.collect import Collector, collect
from tilewright.dsl.algebra.emit import Emitter
from tilewright.dsl.algebra.polynomial import Polynomials
from tilewright.dsl.algebra.recognise import Recogniser

__all__ = ["Collector", "Emitter", "Polynomials", "Recogniser", "collect"]
