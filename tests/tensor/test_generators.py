"""Generators and the Tensors that are drawn with them."""

import threading

import numpy as np
import pytest
import scipy.stats

import tilewright as tw
from tilewright import nn
from tilewright.errors import ArgumentError, DTypeError


def drawn():
    return [tw.rand(3, 4), tw.randn(5), tw.randint(-4, 9, (2, 3)), tw.bernoulli(0.4, 30), tw.randperm(20)]


def equal(first, second):
    return all((a == b).all() for a, b in zip(first, second, strict=True))


def test_a_seed_decides_what_is_drawn():
    tw.manual_seed(5)
    first = drawn()
    assert not equal(first, drawn())
    tw.manual_seed(5)
    assert equal(first, drawn())
    tw.manual_seed(6)
    assert not equal(first, drawn())


def test_a_state_is_saved_and_restored(tmp_path):
    generator = tw.Generator(3)
    generator.next_seed()
    tw.save({"state": generator.get_state()}, tmp_path / "state.safetensors")
    first = [tw.randn(7, generator=generator) for _ in range(3)]
    other = tw.Generator()
    other.set_state(tw.load(tmp_path / "state.safetensors")["state"])
    assert equal(first, [tw.randn(7, generator=other) for _ in range(3)])
    assert other.initial_seed() == 3
    for wrong in (np.zeros(3, np.int64), np.zeros(2), np.int64([1, -1])):
        with pytest.raises(ArgumentError, match="no state of a generator"):
            generator.set_state(wrong)


def test_seeds_of_all_kinds():
    for seed in (0, -1, 2**64 - 1, -(2**63), np.int32(4)):
        assert tw.Generator(seed).next_seed() == tw.Generator(seed).next_seed()
    assert tw.Generator(-1).next_seed() == tw.Generator(2**64 - 1).next_seed()
    assert tw.Generator().next_seed() != tw.Generator().next_seed()
    for wrong in (0.5, True, 2**64, "seed"):
        with pytest.raises(ArgumentError, match="a seed is an integer of 64 bits"):
            tw.manual_seed(wrong)
    with pytest.raises(
        ArgumentError, match=r"expected a tw.Generator, got .*Generator; write tw.Generator\(seed\)"
    ):
        tw.rand(3, generator=np.random.default_rng(0))


def test_seeds_are_those_of_philox_and_all_different():
    generator = tw.Generator(12)
    seeds = [generator.next_seed() for _ in range(5000)]
    assert len(set(seeds)) == 5000 and all(-(2**63) <= seed < 2**63 for seed in seeds)
    bits = np.unpackbits(np.array(seeds).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 0.01


def test_threads_share_a_generator():
    generator, found = tw.Generator(1), []

    def draw():
        found.extend(generator.next_seed() for _ in range(2000))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = tw.Generator(1)
    assert sorted(found) == sorted(alone.next_seed() for _ in range(8000))


def test_a_tensor_is_what_the_op_draws():
    @tw.op
    def noise(like: tw.Tile["..."], seed: tw.Tile[""]):
        return tw.randn(seed, "..."), tw.rand(seed, "...")

    generator = tw.Generator(9)
    normal, uniform = tw.randn(6, 5, generator=generator), tw.rand(6, 5, generator=generator)
    generator.set_state(np.int64([9, 0]))
    np.testing.assert_array_equal(
        normal.numpy(), noise(np.zeros((6, 5), np.float32), generator.next_seed())[0]
    )
    second = noise(np.zeros((6, 5), np.float32), generator.next_seed())[1]
    assert uniform.shape == second.shape


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_dtypes_and_shapes(dtype):
    for shape in ((), (0, 3), (2, 0), (5,), (2, 3, 4)):
        for draw in (tw.rand, tw.randn):
            found = draw(*shape, dtype=dtype)
            assert found.shape == shape and found.dtype.name == dtype
            assert draw(shape, dtype=dtype).shape == shape
    assert tw.rand(3, dtype=dtype, requires_grad=True).requires_grad
    assert float(tw.rand(20_000, dtype=dtype).max()) < 1


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8", "float32"])
def test_whole_numbers(dtype):
    found = tw.randint(3, 120, 5000, dtype=dtype)
    assert found.dtype.name == dtype and found.min() == 3 and found.max() == 119
    assert tw.randint(0, 2, (3, 3), dtype=dtype).shape == (3, 3)


def test_edges_of_ranges():
    assert set(tw.randint(-128, 128, 20_000, dtype="int8").numpy()) == set(range(-128, 128))
    assert set(tw.randint(7, 8, 5).numpy()) == {7}
    for low, high, dtype in ((3, 3, "int64"), (0, 257, "uint8"), (-1, 5, "uint8"), (0, 2**63, "int64")):
        with pytest.raises(ArgumentError, match=r"randint.*need low < high and a dtype that holds them"):
            tw.randint(low, high, 5, dtype=dtype)
    with pytest.raises(DTypeError, match=r"tw.randint"):
        tw.rand(3, dtype="int32")


def test_bernoulli():
    assert not tw.bernoulli(0, 1000).any() and tw.bernoulli(1, 1000).all()
    assert (
        tw.bernoulli(0.5, 3, 4).dtype == tw.bool_
        and tw.bernoulli(0.5, 3, dtype="float32").dtype == tw.float32
    )
    p = tw.tensor(np.linspace(0, 1, 5, dtype=np.float32).repeat(4000))
    shares = tw.bernoulli(p).numpy().reshape(5, 4000).mean(1)
    np.testing.assert_allclose(shares, np.linspace(0, 1, 5), atol=0.03)
    assert shares[0] == 0 and shares[-1] == 1
    with pytest.raises(ArgumentError, match="a probability lies between 0 and 1, got 2"):
        tw.bernoulli(2, 3)
    with pytest.raises(ArgumentError, match="has the shape already"):
        tw.bernoulli(p, 3)


def test_permutations_are_all_alike():
    tw.manual_seed(0)
    found = np.stack([tw.randperm(4).numpy() for _ in range(2400)])
    assert (np.sort(found) == np.arange(4)).all()
    counts = np.unique(found @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24 and scipy.stats.chisquare(counts).pvalue > 1e-3


def test_initialisers_draw_from_the_same_generator():
    tw.manual_seed(2)
    weight = tw.empty(30, 40)
    nn.init.normal_(weight)
    tw.manual_seed(2)
    assert (weight == tw.randn(30, 40)).all()
    tw.manual_seed(2)
    nn.init.uniform_(weight)
    tw.manual_seed(2)
    assert (weight == tw.rand(30, 40)).all()
    nn.init.trunc_normal_(weight, mean=1, std=2, a=0, b=1.5)
    assert 0 <= float(weight.min()) < 0.01 and 1.49 < float(weight.max()) <= 1.5
    with pytest.raises(ArgumentError, match="hardly anything of the normal distribution lies in"):
        nn.init.trunc_normal_(weight, a=50, b=60)


def test_inside_of_an_op_the_axes_are_named():
    @tw.op
    def wrong(x: tw.Tile["n"]):
        return x + tw.rand(3, 4)

    with pytest.raises(Exception, match=r"inside an op tw\.rand draws for every position along named axes"):
        wrong(np.zeros(3, np.float32))
