"""`op.check` and `op.bench` of Tensors on a device: they run where these lie, and see what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tests.support.fake_cuda import FakeCuda, installed
from tilewright.errors import DeviceError
from tilewright.op import bench as benching
from tilewright.op import machines, margins, storage
from tilewright.op.check import CheckReport

HERE = "cuda:1"
RNG = np.random.default_rng(6)


@tw.op
def layer(x: tw.Tile["... m k"], w: tw.Tile["n k"], b: tw.Tile["n"], *, by: tw.Scalar = 2.0):
    return tw.maximum(tw.sum(x * w, "k") * by + b, 0)


@tw.op
def doubled(x: tw.Tile["... d"]):
    return x + x


class Meddling(FakeCuda):
    """A device whose kernels do something more to arrays with margins."""

    def __init__(self, meddle: Callable[[np.ndarray], None]):
        super().__init__(devices=2)
        self.meddle = meddle

    def _run(self, card: Any, *launch: Any) -> None:
        super()._run(card, *launch)
        for block in card.blocks.values():
            if block.size > 2 * margins.MARGIN:
                self.meddle(block.bytes)


@pytest.fixture
def fake() -> Iterator[FakeCuda]:
    with installed(FakeCuda(devices=2)) as made:
        yield made


def drawn(*shape: int, **keywords: Any) -> tw.Tensor:
    return tw.tensor(RNG.standard_normal(shape).astype(np.float32), device=HERE, **keywords)


def verdicts(report: CheckReport) -> dict[tuple[str, str], str]:
    return {(line.what, line.target): line.verdict for line in report.lines}


# --- check ------------------------------------------------------------------------------------------------


def test_an_op_is_checked_where_its_operands_lie(fake):
    x, w, b = drawn(2, 5, 6), drawn(6, 4, requires_grad=True), drawn(4)
    found = layer.check(x, w.T, b, by=0.5)
    assert found.ok, str(found)
    told = verdicts(found)
    for what in ("y", "d_x", "d_w", "d_b", "layer: memory", "layer_backward: memory"):
        assert told[what, HERE] == told[what, "cpu"] == "ok"
    assert {target for _, target in told} == {"cpu", "interpreter", HERE, "finite differences"}
    assert {launch.device for launch in fake.launches} == {1}
    assert w.grad is None


def test_complex_tensors_are_checked_as_well(fake):
    z = RNG.standard_normal((3, 8)).view(np.complex128).astype(np.complex64)
    for tensor, target in ((tw.tensor(z), "cpu"), (tw.tensor(z, device=HERE), HERE)):
        found = doubled.check(tensor)
        assert found.ok and verdicts(found)["y", target] == "ok"


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.T,
        lambda x: x[1:, ::2],
        lambda x: x[0].broadcast_to((3, 6)),
        lambda x: x.T[2:4],
        lambda x: x[:0],
    ],
)
def test_copies_lie_as_the_tensors_do(fake, view):
    array = view(drawn(4, 6))._array
    copy = storage.on_host(array)
    assert isinstance(copy, np.ndarray) and (copy.strides == array.strides or not array.size)
    np.testing.assert_array_equal(copy, array.to_numpy())
    again = storage.lying_on(copy, HERE)
    assert again.strides == array.strides or not array.size
    np.testing.assert_array_equal(again.to_numpy(), copy)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (margins.MARGIN - 1, "a kernel wrote beside"),
        (-margins.MARGIN, "a kernel wrote beside"),
        (margins.MARGIN + 3, "on memory poisoned with NaN"),
    ],
)
def test_what_a_device_does_wrong_is_seen(place, message):
    def meddle(memory: np.ndarray) -> None:
        memory[place] = 7

    with installed(Meddling(meddle)):
        found = doubled.check(drawn(3, 8))
    assert not found.ok
    assert verdicts(found)["doubled: memory", "cpu"] == "ok"
    assert message in verdicts(found)["doubled: memory", HERE]


def test_operands_lie_on_one_device(fake):
    for ask in (layer.check, layer.bench):
        with pytest.raises(DeviceError, match=r'w on cuda:0.*write w\.to\("cuda:1"\)'):
            ask(drawn(2, 3), drawn(4, 3).to("cuda:0"), drawn(4))


# --- bench ------------------------------------------------------------------------------------------------


def test_an_op_is_timed_where_its_operands_lie(fake, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machines, "DEVICE_COPY_BYTES", 2**16)
    found = benching.bench(doubled, (drawn(8, 16).T,), {}, budget=0.01)
    assert "Fake GPU (cuda:1)" in found.machine and found.machine in str(found)
    forward, both, numpy = found.timings
    assert forward.seconds == both.seconds == 1.25e-3, "what lies between the fake's events"
    assert numpy.seconds != forward.seconds and numpy.least is None
    assert found.limits.operations is None
    assert found.limits.bandwidth == pytest.approx(2 * 2**16 / 1.25e-3)
    assert forward.moved == 2 * 4 * 8 * 16
    assert forward.fraction == pytest.approx(forward.moved / found.limits.bandwidth / 1.25e-3)
    assert {launch.device for launch in fake.launches} == {1}
