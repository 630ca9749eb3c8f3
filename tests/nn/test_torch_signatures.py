"""Every option that torch has, in torch's order, with torch's default: read off both signatures."""

import inspect

import pytest
import torch

from tilewright import nn
from tilewright.nn import functional, init

DEPRECATED = {"size_average", "reduce", "_stacklevel", "_weight", "_freeze", "min_value", "max_value"}
ELSEWHERE = {"inplace", "device", "dtype", "generator", "self"}
ABSENT = {
    "gumbel_softmax": {"eps"},  # does nothing in torch
    "linear_cross_entropy": {"options"},  # how torch cuts the product: of no meaning here
    "normalize": {"out"},
    "Sequential": {"args"},
    "Identity": {"args", "kwargs"},
}
# The last dimension, where torch guesses one and warns.
OTHER_DEFAULTS = {
    (name, "dim") for name in ("Softmax", "LogSoftmax", "Softmin", "softmax", "log_softmax", "softmin")
}
OTHER_DEFAULTS |= {("ModuleList", "modules")}


def shared(ours, theirs):
    """(name, ours, torch's) of what both have and can say its parameters."""
    for name in sorted(set(vars(ours)) & set(dir(theirs))):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if name.startswith("_") or not callable(mine) or inspect.isclass(other) != inspect.isclass(mine):
            continue
        if inspect.isclass(other) and not issubclass(other, torch.nn.Module):
            continue
        other = other.__init__ if inspect.isclass(other) else other
        try:
            parameters = inspect.signature(other).parameters
        except ValueError:  # a builtin
            continue
        if not any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
            yield name, inspect.signature(mine).parameters, parameters


PAIRS = [*shared(nn, torch.nn), *shared(functional, torch.nn.functional), *shared(init, torch.nn.init)]


@pytest.mark.parametrize(("name", "ours", "theirs"), PAIRS, ids=[name for name, _, _ in PAIRS])
def test_options_are_torchs(name, ours, theirs):
    wanted = [p for p in theirs.values() if p.name not in DEPRECATED | ELSEWHERE | ABSENT.get(name, set())]
    assert [p.name for p in wanted if p.name not in ours] == []
    for parameter in wanted:
        if (name, parameter.name) not in OTHER_DEFAULTS:
            assert ours[parameter.name].default == parameter.default, parameter.name
    mine = [n for n, p in ours.items() if p.kind is not p.KEYWORD_ONLY and n in theirs and n not in ELSEWHERE]
    assert mine == [p.name for p in wanted if p.name in mine]


def test_there_is_something_to_compare():
    assert len(PAIRS) > 150
