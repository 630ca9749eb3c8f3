"""The tape alone: nodes on plain numbers, without arrays or kernels."""

import gc
import threading
import weakref

import pytest

from tilewright.autograd import tape
from tilewright.autograd.tape import Leaf, Node


class Number:
    """The arithmetic of gradients that are Python numbers."""

    def add(self, first, second):
        return first + second

    def shown(self, gradient):
        return gradient

    def taken(self, gradient, like):
        return gradient


NUMBERS = Number()


class Cell(Leaf):
    __slots__ = ("arrivals", "grad")

    def __init__(self):
        super().__init__()
        self.grad = None
        self.arrivals = 0

    def accumulate(self, gradient, fresh, record):
        self.arrivals += 1
        self.grad = gradient if self.grad is None else self.grad + gradient


class Linear(Node):
    """Σ factor · input; several results are that many copies."""

    __slots__ = ("calls", "factors", "released")

    def __init__(self, *terms):
        super().__init__([source for source, _ in terms])
        self.factors = [factor for _, factor in terms]
        self.calls = 0
        self.released = False

    def backward(self, cotangents, record):
        if self.released:
            raise tape.freed("linear")
        self.calls += 1
        total = sum(cotangents.values())
        return [factor * total for factor in self.factors]

    def release(self):
        self.released = True


def test_gradients_add_up_over_all_paths():
    x = Cell()
    a = Linear(((x, 0), 2))
    b = Linear(((x, 0), 3))
    c = Linear(((a, 0), 5), ((b, 0), 7), ((a, 0), 11))
    tape.accumulate([((c, 0), 1)], NUMBERS)
    assert x.grad == 2 * (5 + 11) + 3 * 7
    assert x.arrivals == a.calls == b.calls == 1


def test_each_node_runs_once_in_a_graph_with_exponentially_many_paths():
    x = Cell()
    node = Linear(((x, 0), 1))
    for _ in range(60):
        node = Linear(((node, 0), 1), ((node, 0), 1))
    tape.accumulate([((node, 0), 1)], NUMBERS)
    assert x.grad == 2**60


def test_a_chain_of_fifty_thousand_nodes_needs_no_recursion():
    x = Cell()
    node = Linear(((x, 0), 1))
    for _ in range(50_000):
        node = Linear(((node, 0), 1))
    tape.accumulate([((node, 0), 3)], NUMBERS)
    assert x.grad == 3
    watch = weakref.ref(node)
    del node
    assert watch() is None


def test_results_that_nothing_used_have_no_cotangent():
    seen = []

    class Two(Linear):
        def backward(self, cotangents, record):
            seen.append(dict(cotangents))
            return super().backward(cotangents, record)

    x = Cell()
    pair = Two(((x, 0), 1))
    tape.accumulate([((Linear(((pair, 1), 4)), 0), 1)], NUMBERS)
    assert seen == [{1: 4}]


def test_inputs_without_a_source_are_skipped():
    x = Cell()
    tape.accumulate([((Linear((None, 9), ((x, 0), 2)), 0), 1)], NUMBERS)
    assert x.grad == 2


def test_gradients_runs_only_what_leads_to_the_wanted():
    x, y = Cell(), Cell()
    a, b = Linear(((x, 0), 2)), Linear(((y, 0), 3))
    top = Linear(((a, 0), 1), ((b, 0), 1))
    assert tape.gradients([((top, 0), 1)], [(a, 0), (x, 0)], NUMBERS) == [1, 2]
    assert (a.calls, b.calls) == (1, 0)
    assert x.grad is None


def test_gradients_stops_at_an_inner_value_and_gives_none_for_what_is_not_reached():
    x, other = Cell(), Cell()
    a = Linear(((x, 0), 2))
    top = Linear(((a, 0), 5))
    assert tape.gradients([((top, 0), 1)], [(a, 0), (other, 0), (top, 0)], NUMBERS) == [5, None, 1]
    assert a.calls == 0


def test_a_second_walk_of_a_released_graph_is_an_error_unless_retained():
    x = Cell()
    node = Linear(((x, 0), 1))
    tape.accumulate([((node, 0), 1)], NUMBERS, retain=True)
    tape.accumulate([((node, 0), 1)], NUMBERS)
    assert x.grad == 2
    with pytest.raises(tape.DerivativeError, match="retain_graph=True"):
        tape.accumulate([((node, 0), 1)], NUMBERS)


def test_hooks_see_and_replace_the_total():
    x = Cell()
    a = Linear(((x, 0), 1))
    top = Linear(((a, 0), 2), ((a, 0), 3))
    seen = []
    inner = a.add_hook(0, lambda g: seen.append(g))
    a.add_hook(0, lambda g: g * 10)
    x.add_hook(0, lambda g: g + 1)
    tape.accumulate([((top, 0), 1)], NUMBERS, retain=True)
    assert (seen, x.grad) == ([5], 51)
    inner.remove()
    tape.accumulate([((top, 0), 1)], NUMBERS)
    assert (seen, x.grad) == ([5], 102)


def test_recording_is_switched_for_one_thread_only_and_nests():
    assert tape.is_recording()
    seen = []
    with tape.no_grad():
        assert not tape.is_recording()
        other = threading.Thread(target=lambda: seen.append(tape.is_recording()))
        other.start()
        other.join()
        with tape.enable_grad():
            assert tape.is_recording()
        with pytest.raises(KeyError), tape.set_grad_enabled(True):
            raise KeyError
        assert not tape.is_recording()
    assert tape.is_recording()
    assert seen == [True]
    assert tape.no_grad()(tape.is_recording)() is False


def test_one_switch_can_be_entered_again():
    switch = tape.no_grad()
    with switch:
        with switch:
            assert not tape.is_recording()
        assert not tape.is_recording()
    assert tape.is_recording()


def test_graphs_are_freed_without_the_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        x = Cell()
        nodes = [Linear(((x, 0), 1))]
        for _ in range(5):
            nodes.append(Linear(((nodes[-1], 0), 1)))
        tape.accumulate([((nodes[-1], 0), 1)], NUMBERS)
        watches = [weakref.ref(n) for n in nodes]
        nodes.clear()
        assert all(watch() is None for watch in watches)
    finally:
        gc.enable()
