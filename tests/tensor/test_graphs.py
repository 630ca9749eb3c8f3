"""Graphs: that a recorded function gives what it gives as it is, and says what it cannot hold."""

from __future__ import annotations

import gc
import sys
from typing import NamedTuple

import numpy as np
import pytest

import tilewright as tw
from tilewright.errors import ArgumentError, CaptureError, DeviceError
from tilewright.runtime.cuda import graphs

RNG = np.random.default_rng(11)
CALLS = 5


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def same(found: tw.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.cpu().numpy(), expected, rtol=2e-6, atol=1e-6)


class Pair(NamedTuple):
    first: tw.Tensor
    second: tw.Tensor | None


# --- what they give ---------------------------------------------------------------------------------------


def test_a_graph_gives_what_its_function_gives(device):
    weight = tw.tensor(draw(6, 4), device=device)
    runs = []

    def model(x: tw.Tensor, y: tw.Tensor):
        runs.append(x.device)
        hidden = tw.kernels.softmax(x @ weight) * 2.0
        return {"sum": hidden + y, "parts": [Pair(hidden.sum(), None), (x.T,)]}

    graph = tw.graph(model)
    assert graph.__name__ == "model"
    results, arrays = [], [(draw(3, 6), draw(4)) for _ in range(CALLS)]
    for x, y in arrays:
        results.append(graph(tw.tensor(x, device=device), tw.tensor(y, device=device)))
    assert len(runs) == 3, "twice as it is, and to be recorded"
    for (x, y), found in zip(arrays, results, strict=True):
        hidden = tw.kernels.softmax(x @ weight.cpu().numpy()) * 2
        same(found["sum"], hidden + y)
        same(found["parts"][0].first, hidden.sum())
        assert found["parts"][0].second is None
        same(found["parts"][1][0], x.T)
        assert found["sum"].device == device


def test_operands_may_lie_in_any_way(device):
    graph = tw.graph(lambda x: tw.exp(x))
    x = tw.tensor(draw(4, 6), device=device)
    for view in (x[:, ::2], x.T[:3].T, x[:, 3:], x[:1].broadcast_to((4, 6))[:, :3]):
        same(graph(view), np.exp(view.cpu().numpy()))


def test_what_is_beside_the_operands_is_used_where_it_lies(device):
    weight, total = tw.tensor(draw(3), device=device), tw.zeros(3, device=device)

    def count(x: tw.Tensor):
        total.add_(x)
        return total * weight

    graph = tw.graph(count)
    expected = np.zeros(3, np.float32)
    for n in range(CALLS):
        x = draw(3)
        expected += x
        if n == 2:
            weight.copy_(tw.tensor(np.float32([5, 6, 7]), device=device))
        same(graph(tw.tensor(x, device=device)), expected * weight.cpu().numpy())
    same(total, expected)


def sgd(params) -> tw.optim.Optimizer:
    return tw.optim.SGD(params, lr=0.05, momentum=0.9)


def adamw(params) -> tw.optim.Optimizer:
    """Whose rate is on the device as well."""
    return tw.optim.AdamW(params, lr=tw.full((), 0.05), capturable=True)


def training(device: str, graphed: bool, optimizer_of=sgd) -> list[np.ndarray]:
    """The losses of some steps, and the weights after them. A rate that is a Tensor falls on the way."""
    tw.manual_seed(3)
    with tw.device(device):
        model = tw.nn.Sequential(tw.nn.Linear(5, 7), tw.nn.GELU(), tw.nn.Linear(7, 1))
        optimizer = optimizer_of(model.parameters())
    rng = np.random.default_rng(5)

    def step(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    run = tw.graph(step) if graphed else step
    losses = []
    for number in range(7):
        rate = optimizer.param_groups[0]["lr"]
        if number == 5 and isinstance(rate, tw.Tensor):
            rate.fill_(0.01)
        x, y = rng.standard_normal((8, 5)), rng.standard_normal((8, 1))
        losses.append(run(*(tw.tensor(a.astype(np.float32), device=device) for a in (x, y))))
    return [t.detach().cpu().numpy() for t in (*losses, *model.parameters())]


@pytest.mark.parametrize("optimizer_of", [sgd, adamw])
def test_a_training_step_trains_as_it_does_without(device, optimizer_of):
    runs = (training(device, graphed, optimizer_of) for graphed in (True, False))
    for found, expected in zip(*runs, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_steps_on_the_device_are_those_counted_in_python(device):
    def plain(params) -> tw.optim.Optimizer:
        return tw.optim.AdamW(params, lr=0.05)

    def counted(params) -> tw.optim.Optimizer:
        return tw.optim.AdamW(params, lr=0.05, capturable=True)

    runs = (training(device, graphed, of) for graphed, of in ((True, counted), (False, plain)))
    for found, expected in zip(*runs, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_graph_without_operands(device):
    x = tw.tensor(draw(3), device=device)
    start = x.cpu().numpy()
    with tw.device(device):
        graph = tw.graph(lambda: x.mul_(2.0))
        for n in range(1, CALLS):
            same(graph(), start * 2**n)


def test_reused_results_lie_in_one_place(device):
    graph = tw.graph(lambda x: x * 3.0, reuse=True)
    x, y = tw.ones(4, device=device), tw.full((4,), 2.0, device=device)
    graph(x)
    graph(x)
    first = graph(x)
    second = graph(y)
    assert first._array.address == second._array.address
    same(first, np.full(4, 6.0))


# --- turns on memory --------------------------------------------------------------------------------------


def test_graphs_take_turns_with_other_streams(device):
    """Nothing waits for the device: what a graph reads and writes is ordered by whose turn it is."""
    weight = tw.ones(256, device=device)
    graph = tw.graph(lambda x: x * weight, reuse=True)
    x = tw.ones(256, device=device)
    for _ in range(3):
        graph(x)
    side = tw.cuda.Stream(device)
    with tw.cuda.stream(side):
        x = x * 4.0
    found = graph(x) * 1.0  # waits for the other stream
    weight.mul_(10.0)  # waits for the graph
    with tw.cuda.stream(side):
        later = graph(x) + 0.0
        kept = later * 1.0
    graph(tw.zeros(256, device=device))  # waits for those that read its results
    same(found, np.full(256, 4.0))
    same(kept, np.full(256, 40.0))


def test_memory_of_a_graph_is_its_own_and_goes_with_it(device):
    tw.cuda.empty_cache()
    gc.collect()
    x = tw.ones(1000, device=device)
    others = [tw.full((1000,), float(n), device=device) for n in range(8)]  # numbers are kept on the device
    del others
    before = tw.cuda.memory_stats(device).live_bytes
    graph = tw.graph(lambda x: tw.exp(x * 2.0 + 1.0).sum())
    for _ in range(3):
        graph(x)
    assert graph.bytes > 0
    held = tw.cuda.memory_stats(device).live_bytes - before
    assert held >= graph.bytes
    others = [tw.full((1000,), float(n), device=device) for n in range(8)]  # none in the graph's memory
    same(graph(x), np.exp(np.full(1000, 3.0)).sum())
    for n, other in enumerate(others):
        same(other, np.full(1000, float(n)))
    del graph, others, other
    gc.collect()
    assert tw.cuda.memory_stats(device).live_bytes == before


def test_what_a_function_keeps_outlives_its_graph(device):
    kept = []

    def model(x: tw.Tensor):
        kept.append(x + 1.0)
        return x

    graph = tw.graph(model)
    x = tw.ones(64, device=device)
    for _ in range(CALLS):
        graph(x)
    del graph
    gc.collect()
    others = [tw.zeros(64, device=device) for _ in range(4)]
    assert len(kept) == 3
    same(kept[2], np.full(64, 2.0))
    del others


def test_a_call_is_one_launch(fake):
    weight = tw.ones(8, 8, device="cuda")

    def model(x: tw.Tensor):
        for _ in range(5):
            x = tw.kernels.softmax(x @ weight)
        return x

    graph = tw.graph(model, reuse=True)
    x = tw.ones(8, 8, device="cuda")
    for _ in range(4):
        graph(x)
    before = len(fake.calls)
    graph(x)
    calls = fake.calls[before:]
    assert calls.count("cuGraphLaunch") == 1
    assert "cuLaunchKernel" not in calls
    assert len(calls) < 10, calls


def test_a_failure_in_a_graph_names_it(fake):
    graph = tw.graph(lambda x: tw.kernels.softmax(x))
    x = tw.ones(8, device="cuda")
    for _ in range(3):
        graph(x)
    tw.cuda.synchronize()
    fake.breaking = "softmax"
    y = graph(x)
    with pytest.raises(tw.errors.LaunchError, match=r"op 'graph of .*lambda.*' was the first .*softmax"):
        y.tolist()


def test_a_graph_that_outlives_the_driver_goes_quietly(fake, monkeypatch: pytest.MonkeyPatch):
    """Its finalizer may run when no driver is found any more: nothing is raised where nobody can catch it."""
    model = tw.graph(lambda x: x + 1.0)
    for _ in range(4):
        model(tw.ones(3, device="cuda"))
    (made,) = fake.graphs
    monkeypatch.setattr(graphs, "bindings", lambda: pytest.fail("the driver was looked for again"))
    raised = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    del model
    gc.collect()
    assert made.destroyed and not raised


def test_graphs_are_given_back_to_the_driver(fake):
    graph = tw.graph(lambda x: x + 1.0)
    for _ in range(4):
        graph(tw.ones(3, device="cuda"))
    (made,) = fake.graphs
    del graph
    gc.collect()
    assert made.destroyed


# --- what they cannot hold --------------------------------------------------------------------------------


def refused(graph, *operands) -> str:
    with pytest.raises(CaptureError) as raised:
        graph(*operands)
    return str(raised.value)


READS = {
    "item": lambda x: x * x.sum().item(),
    "if": lambda x: x if x.sum() > 0 else -x,
    "print": lambda x: x + len(repr(x)),
    "numpy": lambda x: x + tw.tensor(x.cpu().numpy().sum(), device=x.device),
}


@pytest.mark.parametrize("function", READS.values(), ids=READS)
def test_values_cannot_be_read(device, function):
    told = refused(tw.graph(function), tw.ones(3, device=device))
    assert "reads a Tensor's values on the CPU" in told and "have it give the Tensor" in told


def test_the_device_cannot_be_waited_for(device):
    def waits(x: tw.Tensor):
        tw.cuda.synchronize(device)
        return x

    assert "it waits for the device; wait after the graph's call" in refused(
        tw.graph(waits), tw.ones(3, device=device)
    )


def test_streams_cannot_be_chosen(device):
    side = tw.cuda.Stream(device)

    def elsewhere(x: tw.Tensor):
        with tw.cuda.stream(side):
            return x + 1.0

    assert "it chooses a stream" in refused(tw.graph(elsewhere), tw.ones(3, device=device))


def test_random_numbers_would_be_the_same(device):
    told = refused(tw.graph(lambda x: x + tw.rand(3, device=device)), tw.ones(3, device=device))
    assert "random numbers, which would be the same in every call; pass them, or a seed, as a Tensor" in told


def test_arrays_cannot_come_from_the_cpu(device):
    told = refused(tw.graph(lambda x: x + tw.tensor([1.0, 2.0], device=device)), tw.ones(2, device=device))
    assert "it copies float32[2] from the CPU; pass it as a Tensor" in told


def test_numbers_cannot_change(device):
    numbers = iter(range(9))
    graph = tw.graph(lambda x: x * float(next(numbers)))
    x = tw.ones(3, device=device)
    same(graph(x), np.zeros(3))
    same(graph(x), np.ones(3))
    told = refused(graph, x)
    assert "op 'mul': b was 1.0 in one call and is 2.0 in the next" in told
    assert "pass what changes as a Tensor" in told


def test_scalars_of_ops_cannot_change(device):
    param, mean, square = (tw.ones(3, device=device) for _ in range(3))
    steps = iter(range(1, 9))

    def step(gradient: tw.Tensor):
        return tw.kernels.adamw_step(param, gradient, mean, square, step=float(next(steps)))

    graph = tw.graph(step)
    graph(tw.ones(3, device=device))
    graph(tw.ones(3, device=device))
    assert "op 'adamw_step': step was 2.0 in one call and is 3.0 in the next" in refused(
        graph, tw.ones(3, device=device)
    )


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ([1.0, 2.0], "op 'add': b (now 2.0) was not there"),
        ([3.0], "op 'add': b was 1.0 in one call and is 3.0 in the next"),
    ],
)
def test_another_way_while_it_is_recorded_is_seen(device, last, message):
    ways = iter([[1.0], [1.0], last])

    def model(x: tw.Tensor):
        for number in next(ways):
            x = x + number
        return x

    graph = tw.graph(model)
    graph(tw.ones(3, device=device))
    graph(tw.ones(3, device=device))
    assert message in refused(graph, tw.ones(3, device=device))


def stepping(device: str, **options) -> tuple[tw.Graph, tw.optim.Optimizer, tw.Tensor]:
    """A graph of an AdamW's step."""
    param = tw.ones(3, device=device, requires_grad=True)
    optimizer = tw.optim.AdamW([param], **options)

    def step(x: tw.Tensor) -> None:
        optimizer.zero_grad()
        (param * x).sum().backward()
        optimizer.step()

    return tw.graph(step), optimizer, tw.ones(3, device=device)


def test_steps_that_python_counts_cannot_be_recorded(device):
    graph, _, x = stepping(device)
    with pytest.raises(
        CaptureError, match=r"counts steps in Python.*make the optimizer with capturable=True"
    ):
        graph(x)


def test_options_that_a_graph_does_not_see_cannot_change(device):
    graph, optimizer, x = stepping(device, lr=0.1, capturable=True)
    group = optimizer.param_groups[0]
    for _ in range(CALLS):
        graph(x)
    group["lr"] = 0.05
    message = "option 'lr' of AdamW's group 0 was 0.1 when it was recorded, and is 0.05 now.*make it a Tensor"
    with pytest.raises(CaptureError, match=message):
        graph(x)
    group["lr"] = 0.1
    graph(x)
    group["lr"] = tw.full((), 0.1, device=device)
    with pytest.raises(CaptureError, match=r"was 0\.1 when it was recorded, and is Tensor"):
        graph(x)


def test_other_operands_need_another_graph(device):
    graph = tw.graph(lambda x: x + 1.0)
    graph(tw.ones(3, device=device))
    told = refused(graph, tw.ones(4, device=device))
    assert f"it is for float32[3] on {device}, and is called with float32[4] on {device}" in told
    assert "make another graph" in told
    assert "called with float64[3]" in refused(graph, tw.ones(3, device=device, dtype="float64"))
    assert "called with no operands" in refused(graph)
    same(graph(tw.ones(3, device=device)), np.full(3, 2.0))


def test_operands_are_tensors_of_one_device_without_gradients(device, fake):
    graph = tw.graph(lambda x, y: x + y)
    x = tw.ones(3, device=device)
    with pytest.raises(
        DeviceError, match=r"operand 1 lies on the CPU.*x\.to\(\"cuda\"\), or call the function"
    ):
        graph(x, tw.ones(3))
    with pytest.raises(ArgumentError, match="operand 1 is of type float; a graph takes Tensors by position"):
        graph(x, 2.0)
    assert "operand 0 requires a gradient" in refused(graph, tw.ones(3, device=device, requires_grad=True), x)
    with tw.no_grad():
        same(graph(tw.ones(3, device=device, requires_grad=True), x), np.full(3, 2.0))
    with pytest.raises(ArgumentError, match="takes a function of Tensors, got Tensor"):
        tw.graph(x)


def test_a_graph_is_of_one_device(fake):
    here, there = tw.ones(3, device="cuda:0"), tw.ones(3, device="cuda:1")
    with pytest.raises(DeviceError, match=r"operand 1 lies on cuda:1, the first on cuda:0"):
        tw.graph(lambda x, y: x)(here, there)
    told = refused(tw.graph(lambda x: x + (there + 1.0).to("cuda:0")), here)
    assert "runs ops on cuda:1 beside those on cuda:0; a graph is of one device" in told


def test_operands_cannot_be_written_to(device):
    graph = tw.graph(lambda x: x.add_(1.0))
    x = tw.ones(3, device=device)
    same(graph(x), np.full(3, 2.0))
    same(graph(x), np.full(3, 3.0))
    assert "it writes to operand 0, which is a copy" in refused(graph, x)


def test_results_are_tensors(device):
    x = tw.ones(3, device=device)
    assert "it gives float, which would be the same" in refused(tw.graph(lambda x: 1.0), x)
    assert "it gives a Tensor on the CPU" in refused(tw.graph(lambda x: tw.ones(3)), x)


def test_graphs_do_not_nest(device):
    inner = tw.graph(lambda x: x + 1.0)
    assert "it calls the graph of" in refused(tw.graph(lambda x: inner(x)), tw.ones(3, device=device))


def test_a_recording_that_fails_leaves_everything_usable(device):
    calls = []

    def model(x: tw.Tensor):
        calls.append(x)
        y = tw.exp(x)
        if len(calls) == 3:
            raise KeyError("mine")
        return y

    graph = tw.graph(model)
    x = tw.zeros(3, device=device)
    graph(x)
    graph(x)
    with pytest.raises(KeyError, match="mine"):
        graph(x)
    same(graph(x), np.ones(3))
    same(graph(x), np.ones(3))
    same(tw.exp(x), np.ones(3))
