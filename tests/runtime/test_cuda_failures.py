"""What can go wrong with a device, one clear message each, on a fake driver."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tilewright as tw
from tests.support.fake_cuda import OUT_OF_RESOURCES, FakeCuda, installed
from tilewright.errors import ArgumentError, LaunchError, ResourceError, TargetError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake():
    with installed(FakeCuda(devices=2)) as made:
        yield made


# --- no device --------------------------------------------------------------------------------------------


def test_without_a_device_the_remedy_is_given():
    with installed(FakeCuda(devices=0)):
        assert not tw.cuda.is_available()
        assert tw.cuda.device_count() == 0
        for use in (
            lambda: tw.ones(2, device="cuda"),
            lambda: tw.ones(2).cuda(),
            lambda: tw.nn.LayerNorm(2).to("cuda:0"),
            tw.cuda.synchronize,
        ):
            with pytest.raises(TargetError, match=r"no CUDA device: .* finds no device .*or use the CPU"):
                use()


def test_an_old_driver_is_named():
    told = pytest.raises(TargetError, match=r"too old: it knows CUDA 11\.4, and 12\.0 is needed")
    with installed(FakeCuda(version=11040)), told:
        tw.ones(2, device="cuda")
    fake = FakeCuda()
    fake.failing["cuInit"] = 803
    with installed(fake), pytest.raises(TargetError, match="driver is too old for this library"):
        tw.cuda.synchronize()


def test_devices_that_do_not_exist(fake):
    with pytest.raises(TargetError, match="no CUDA device 5: there are 2, counted from 0"):
        tw.ones(2, device="cuda:5")
    for name in ("gpu", "cuda:x", "cuda:-1", 3.5):
        with pytest.raises(ArgumentError, match='devices are "cpu", "cuda", "cuda:0"'):
            tw.device(name)
    with pytest.raises(ArgumentError, match="cpu is no CUDA device"):
        tw.cuda.synchronize("cpu")


def test_devices_are_values():
    assert tw.device("cuda", 1) == tw.device("cuda:1") == "cuda:1"
    assert tw.device("cuda:1") != tw.device("cuda:0")
    assert tw.device(tw.device("cpu")).type == "cpu"
    assert tw.device("cpu").index is None
    assert len({tw.device("cuda:1"), tw.device("cuda", 1), tw.device("cpu")}) == 2
    assert repr(tw.device("cuda:1")) == "device('cuda:1')"
    with pytest.raises(AttributeError, match="does not change"):
        tw.device("cpu").type = "cuda"


# --- kernels that fail ------------------------------------------------------------------------------------


def test_a_failure_that_shows_later_names_the_op(fake):
    x = tw.randn(8, 8).to("cuda")
    good = x + 1
    fake.breaking = "softmax"
    bad = tw.kernels.softmax(x)
    after = bad * 2  # queued behind
    assert fake.faults == [], "nothing has run so far"
    with pytest.raises(LaunchError) as raised:
        after.tolist()
    text = str(raised.value)
    assert "op 'softmax' was the first that did not finish" in text
    assert "cannot use the device any more" in text
    assert "TILEWRIGHT_LAUNCH_BLOCKING=1" in text
    with pytest.raises(LaunchError, match="'softmax'"):  # whatever comes next says the same
        good.tolist()


def test_a_failure_in_a_backward_names_it(fake):
    x = tw.randn(4, 4).to("cuda").requires_grad_()
    y = tw.kernels.softmax(x).max()
    tw.cuda.synchronize()
    fake.breaking = "softmax_backward"
    y.backward()
    assert any("softmax_backward" in launch.function for launch in fake.launches)
    with pytest.raises(LaunchError, match=r"op .softmax_backward. was the first that did not finish"):
        tw.cuda.synchronize()


def test_without_stream_writes_the_last_ops_are_named(fake):
    fake.failing["cuStreamWriteValue32"] = 801
    x = tw.ones(4, device="cuda")
    fake.breaking = "exp"
    tw.exp(x).sum()
    with pytest.raises(LaunchError, match=r"op 'exp' or op 'sum'"):
        tw.cuda.synchronize()


def test_a_blocking_launch_fails_where_it_is_called(fake, monkeypatch):
    monkeypatch.setenv("TILEWRIGHT_LAUNCH_BLOCKING", "1")
    x = tw.ones(4, device="cuda")
    fake.breaking = "exp"
    with pytest.raises(LaunchError, match="op 'exp'"):
        tw.exp(x)


def test_a_kernel_beyond_its_memory_is_caught(fake):
    """What makes the tests above worth something: the fake sees a bad access by itself."""
    x = tw.ones(1024, device="cuda")
    card = fake.cards[0]
    block = card.blocks[x._array.address]
    y = tw.ones(1024, device="cuda")
    tw.cuda.synchronize()
    block.bytes, block.size = block.bytes[:1024], 1024
    z = x + y
    with pytest.raises(LaunchError, match="op 'add'"):
        z.tolist()
    assert "out of bounds" in fake.faults[0]


def test_a_kernel_that_does_not_fit_is_refused(fake):
    x = tw.ones(4, device="cuda")
    fake.failing["cuLaunchKernel"] = OUT_OF_RESOURCES
    with pytest.raises(
        ResourceError, match=r"op 'exp': launching kernel .*more registers, threads or shared"
    ):
        tw.exp(x)


def test_too_much_shared_memory_is_refused():
    with installed(FakeCuda(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN=512)) as fake:
        x = tw.tensor([1.0], device="cuda")
        with pytest.raises(
            ResourceError, match=r"op 'exp': kernel .* needs 1024 bytes of shared memory; a block"
        ):
            tw.exp(x)
        assert not fake.launches


# --- processes --------------------------------------------------------------------------------------------


def run(code: str) -> str:
    """The output of a fresh interpreter."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    found = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_is_told_and_breaks_nothing():
    told = run("""
        import os, sys
        import tilewright as tw
        from tests.support.fake_cuda import FakeCuda, installed

        with installed(FakeCuda()) as fake:
            x = tw.ones(3, device="cuda") + 1
            child = os.fork()
            if not child:
                try:
                    x + 1
                except tw.errors.TargetError as error:
                    print(error, flush=True)
                calls = len(fake.calls)
                del x  # its memory is the parent's
                assert len(fake.calls) == calls
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            print((x + 1).tolist())
    """)
    assert "forked from one that had used CUDA" in told
    assert 'multiprocessing.get_context("spawn")' in told
    assert "[3.0, 3.0, 3.0]" in told


BLOCKED = ("torch", "mlir", "torch_mlir", "llvmlite")


def test_a_device_needs_neither_torch_nor_mlir():
    """A training step with both blocked."""
    told = run(f"""
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {BLOCKED!r}:
                    raise ImportError("blocked: " + name)

        sys.meta_path.insert(0, Blocker())
        import tilewright as tw
        from tests.support.fake_cuda import FakeCuda, installed

        with installed(FakeCuda()):
            with tw.device("cuda"):
                weight = tw.full((3, 2), 0.5, requires_grad=True)
                x, labels = tw.tensor([[1.0, 2.0, 3.0]]), tw.tensor([1])
            for _ in range(3):
                loss = tw.kernels.cross_entropy(x @ weight, labels)
                loss.backward()
                with tw.no_grad():
                    weight.sub_(weight.grad * 0.1)
                weight.grad = None
            print(loss.item(), [m for m in {BLOCKED!r} if m in sys.modules])
    """)
    loss, blocked = told.split(maxsplit=1)
    assert 0 < float(loss) < np.log(2)
    assert blocked.strip() == "[]"


def test_nothing_of_a_device_is_imported_before_it_is_used():
    told = run("""
        import sys
        import tilewright as tw
        tw.ones(2).to("cpu").sum().item()
        tw.zeros(2, device="cpu")
        print([m for m in sys.modules if m.startswith(("tilewright.runtime.cuda", "cuda", "triton"))])
    """)
    assert told.strip() == "[]"
