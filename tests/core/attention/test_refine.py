"""Refinement by self-attention, against the attention matrix written out in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.refine import FLAT, MOST_POWERS, SelfAttention, refine

GRID = (5, 7)
HEADS, CHANNELS = 3, 4

# What rounding leaves of maps up to 1: the values, and in half precision the weights too, have this many digits.
CLOSE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def sdpa(q, k, v, mask):
    """PyTorch's own attention, as the host's backend calls it."""
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    mask = mask if mask is None or mask.ndim == 2 else mask.reshape(len(mask), -1, *mask.shape[-2:])
    return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)


def written_out(q, k, v, mask):
    """Attention by the matrix itself, in the precision of q, as the host's simplest backend."""
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    return (torch.softmax(q @ k.transpose(-1, -2) * CHANNELS**-0.5, -1) @ v).transpose(1, 2).flatten(2)


BACKENDS = pytest.mark.parametrize("backend", [sdpa, written_out], ids=["sdpa", "written out"])


def layer(seed=0, *, grid=GRID, batch=3, size=2.0, alike=0.0, dtype=torch.float32, backend=sdpa, **how):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, math.prod(grid), HEADS * CHANNELS)
    q, k = (size * torch.randn(shape, generator=generator) for _ in range(2))
    k = k + alike * q  # a place that attends mostly to itself does not become flat in many powers
    return SelfAttention(q.to(dtype), k.to(dtype), HEADS, grid, backend, **how)


def matrix(layer):
    """S [B,N,N], in float64."""
    q, k = (t.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (layer.q, layer.k))
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(CHANNELS), dim=-1).mean(1)


def explicit(layers, maps, power):
    """(mean_l S_l)^power A in float64, on the layers' grid."""
    return product(torch.stack([matrix(each) for each in layers]).mean(0), maps, power)


def product(mean, maps, power):
    values = maps.double().flatten(2)
    for _ in range(power):
        values = torch.einsum("bij,sbj->sbi", mean, values)
    return values.unflatten(-1, maps.shape[-2:])


def strongest(maps, layers, power):
    """The maps after all powers, and how many each has had."""
    found, powers = refine(maps, layers, power)
    assert len(found) == power
    return found[-1], powers


def some_maps(count=2, *, grid=GRID, batch=3, seed=9):
    return torch.rand((count, batch, *grid), generator=torch.Generator().manual_seed(seed))


def test_two_positions_by_hand():
    # one head: softmax(log 3, 0) = (3/4, 1/4) for the first position, (1/2, 1/2) for the second
    q, k = torch.tensor([[[1.0], [0.0]]]), torch.tensor([[[math.log(3.0)], [0.0]]])
    by_hand = SelfAttention(q, k, 1, (1, 2), lambda q, k, v, mask: torch.softmax(q @ k.transpose(-1, -2), -1) @ v)
    refined, powers = strongest(torch.tensor([[[[8.0, 0.0]]]]), [by_hand], 1)
    assert torch.allclose(refined, torch.tensor([[[[6.0, 4.0]]]]))
    assert powers.tolist() == [[1]]


@BACKENDS
@pytest.mark.parametrize("power", range(1, MOST_POWERS + 1))
def test_it_is_the_product_with_the_mean_attention_of_heads_and_layers(backend, power):
    layers, maps = [layer(seed, alike=1.0, backend=backend) for seed in range(3)], some_maps()
    refined, powers = strongest(maps, layers, power)
    assert refined.dtype == torch.float32
    assert torch.allclose(refined.double(), explicit(layers, maps, power), rtol=0, atol=CLOSE[torch.float32])
    assert powers.tolist() == [[power] * 3] * 2


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-7], ids=["ordinary", "above float16", "below float16"])
def test_half_precision_whatever_the_size_of_the_maps(backend, dtype, scale):
    layers, maps = [layer(dtype=dtype, backend=backend)], some_maps() * scale
    refined, _ = strongest(maps, layers, 2)
    assert torch.allclose(refined.double() / scale, explicit(layers, maps, 2) / scale, rtol=0, atol=CLOSE[dtype])


def test_half_precision_where_the_scores_overflow_it():
    # q k^T of hundreds each: the scores are above 65504, the largest number of float16; the backend sums in float32
    layers, maps = [layer(size=300.0, dtype=torch.float16)], some_maps()
    q, k = layers[0].q[0, :, :CHANNELS], layers[0].k[0, :, :CHANNELS]
    assert float((q.float() @ k.float().T).abs().max()) > torch.finfo(torch.float16).max
    refined, _ = strongest(maps, layers, 1)
    assert torch.allclose(refined.double(), explicit(layers, maps, 1), rtol=0, atol=CLOSE[torch.float16])


@pytest.mark.parametrize("dtype", CLOSE)
def test_values_stay_between_the_least_and_the_largest_and_ones_stay_ones(dtype):
    layers = [layer(seed, dtype=dtype) for seed in range(2)]
    maps = torch.cat([some_maps() + 3.0, torch.ones(1, 3, *GRID)])
    refined, powers = strongest(maps, layers, 4)
    assert torch.equal(refined[2], maps[2])
    assert powers.tolist() == [[4] * 3, [4] * 3, [0] * 3]
    rounding = 1e-6  # of a sum near 4 in float32, whatever the layers' precision
    assert bool((refined.amax((-2, -1)) <= maps.amax((-2, -1)) + rounding).all())
    assert bool((refined.amin((-2, -1)) >= maps.amin((-2, -1)) - rounding).all())


def test_two_powers_are_one_power_twice():
    layers, maps = [layer(0), layer(1)], some_maps()
    once, _ = strongest(maps, layers, 1)
    assert torch.equal(strongest(once, layers, 1)[0], strongest(maps, layers, 2)[0])


@pytest.mark.parametrize("of_maps", [GRID, (10, 14), (4, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_power_on_the_way_is_what_fewer_powers_give_bit_for_bit(of_maps, dtype):
    """One of the maps has become flat before the last power, one was never anything else."""
    layers = [layer(0, size=0.5, dtype=dtype), layer(1, size=0.5, grid=(3, 4), dtype=dtype)]
    maps = torch.cat([some_maps(1, grid=of_maps), 1.0 + 2 * FLAT * some_maps(1, grid=of_maps)])
    maps = torch.cat([maps, torch.ones_like(maps[:1])])
    found, powers = refine(maps, layers, 5)
    assert powers[1].max() < 5
    for power, each in enumerate(found, start=1):
        alone, had = strongest(maps, layers, power)
        assert torch.equal(each, alone)
        assert torch.equal(had, powers.clamp_max(power))
    assert not torch.equal(found[0][0], found[1][0])


def test_more_maps_than_channels_take_several_calls_of_the_backend():
    calls = []

    def counting(q, k, v, mask):
        calls.append(v.unflatten(-1, (HEADS, -1)).any(1).any(1).sum(-1).tolist())
        return sdpa(q, k, v, mask)

    layers, maps = [layer(backend=counting)], some_maps(2 * CHANNELS + 1)
    refined, _ = strongest(maps, layers, 1)
    assert calls == [[4] * 3, [4] * 3, [1] * 3]
    assert torch.allclose(refined.double(), explicit(layers, maps, 1), rtol=0, atol=CLOSE[torch.float32])


@pytest.mark.parametrize(("of_maps", "of_layers"), [((6, 8), (3, 4)), ((3, 4), (6, 8)), ((7, 9), (4, 5))])
def test_maps_on_another_grid_go_to_the_layers_and_back(of_maps, of_layers):
    layers, maps = [layer(grid=of_layers)], some_maps(grid=of_maps)
    there = F.interpolate(maps.double(), size=of_layers, mode="bilinear")
    expected = F.interpolate(explicit(layers, there, 2), size=of_maps, mode="area")
    refined, _ = strongest(maps, layers, 2)
    assert refined.shape == maps.shape
    assert torch.allclose(refined.double(), expected, rtol=0, atol=CLOSE[torch.float32])


def test_a_grid_twice_as_fine_as_the_layers_gets_means_and_repeats_of_two_by_two():
    layers, maps = [layer(grid=(3, 4))], some_maps(grid=(6, 8))
    means = maps.unflatten(-1, (4, 2)).unflatten(-3, (3, 2)).mean((-1, -3))
    expected = explicit(layers, means, 1).repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.allclose(strongest(maps, layers, 1)[0].double(), expected, rtol=0, atol=CLOSE[torch.float32])


@BACKENDS
@pytest.mark.parametrize("queries", [1, 4, 16])
def test_queries_are_cut_so_that_no_backend_writes_the_whole_matrix_down(backend, queries):
    calls = []

    def counting(q, k, v, mask):
        calls.append((q.shape[1], k.shape[1]))
        return backend(q, k, v, mask)

    n, maps = math.prod(GRID), some_maps()
    at_once = queries * 3 * HEADS * n  # of a batch of 3
    refined, _ = strongest(maps, [layer(backend=counting, at_once=at_once + 1)], 2)
    cut = [queries] * (n // queries) + [n % queries] * bool(n % queries)
    assert calls == [(each, n) for each in cut] * 2
    whole, _ = strongest(maps, [layer(backend=backend)], 2)
    assert torch.allclose(refined, whole, rtol=0, atol=CLOSE[torch.float32])


@pytest.mark.parametrize("shape", [(35, 35), (3, 35, 35), (3, HEADS, 35, 35), (1, 1, 35)])
@pytest.mark.parametrize("at_once", [2**27, 9 * 3 * HEADS * 35])
def test_an_attention_mask_is_cut_with_the_queries(shape, at_once):
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    masked, maps = layer(mask=mask, at_once=at_once), some_maps()
    q, k = (t.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (masked.q, masked.k))
    added = mask.double() if mask.ndim != 3 else mask.double().unsqueeze(1)
    s = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(CHANNELS) + added, dim=-1).mean(1)
    refined, _ = strongest(maps, [masked], 2)
    assert torch.allclose(refined.double(), product(s, maps, 2), rtol=0, atol=CLOSE[torch.float32])


def test_layers_on_two_grids_are_averaged_on_the_finer_one():
    fine, coarse, maps = layer(0, grid=(6, 8)), layer(1, grid=(3, 4)), some_maps(grid=(6, 8))
    expected = maps.double()
    for _ in range(3):
        there = explicit([coarse], expected.unflatten(-1, (4, 2)).unflatten(-3, (3, 2)).mean((-1, -3)), 1)
        back = F.interpolate(there, size=(6, 8), mode="bilinear")
        expected = (explicit([fine], expected, 1) + back) / 2
    for layers in ([fine, coarse], [coarse, fine]):
        refined, _ = strongest(maps, layers, 3)
        assert torch.allclose(refined.double(), expected, rtol=0, atol=CLOSE[torch.float32])


def test_a_map_that_has_become_flat_gets_no_more_powers_and_the_others_go_on():
    # Weak attention mixes everything: one power leaves less than a thousandth of the differences of a nearly flat map.
    layers = [layer(size=0.5)]
    nearly, uneven = 1.0 + 2 * FLAT * some_maps(1), some_maps(1) ** 8
    refined, powers = strongest(torch.cat([nearly, uneven]), layers, 3)
    assert powers[0].tolist() == [1] * 3
    assert torch.allclose(refined[0].double(), explicit(layers, nearly, 1)[0], rtol=0, atol=1e-6)
    spread = (refined[0].amax((-2, -1)) - refined[0].amin((-2, -1))) / refined[0].mean((-2, -1))
    assert bool((spread < FLAT).all())
    assert int(powers[1].min()) > 1


def test_a_map_of_zeros_stays_one():
    refined, powers = strongest(torch.zeros(1, 3, *GRID), [layer()], 2)
    assert not refined.any()
    assert powers.tolist() == [[0] * 3]
