"""Captured attention against independent computations: diffusers with the same weights, and the host's own backend."""

import math

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.probabilities import token_attention, token_columns
from explainable_latents.nodes.host.attention.observer import observe
from tests.host.unets import CONTEXT, SUBJECTS, conditioning, noise, random_unet, sample, unet_config

TOKENS = [list(tokens) for tokens in SUBJECTS.positions()]


class ReadScores:
    """A diffusers attention processor that computes the probabilities itself and notes those of cross-attention."""

    def __init__(self):
        self.probabilities = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        q, k, v = (t.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for t in (q, k, v))
        if encoder_hidden_states is None:
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            p = torch.softmax(q.float() @ k.float().transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
            self.probabilities.append(p)
            out = p.to(v.dtype) @ v
        return attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))


def twins(kind, dtype):
    """The same random weights as a diffusers model and as a ModelPatcher of the host."""
    import comfy.utils
    from diffusers import UNet2DConditionModel

    config = unet_config(kind)
    attention = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"]
    # diffusers calls the number of heads `attention_head_dim`
    heads = 8 if kind == "SD15" else (1, 2)
    torch.manual_seed(5)
    network = UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=tuple(config["model_channels"] * each for each in config["channel_mult"]),
        cross_attention_dim=CONTEXT,
        down_block_types=attention,
        up_block_types=[name.replace("Down", "Up") for name in attention],
        attention_head_dim=heads,
        use_linear_projection=config["use_linear_in_transformer"],
    )
    # random projections of unit variance give attention worth comparing
    for name, value in network.named_parameters():
        if "attn2.to_q" in name or "attn2.to_k" in name:
            torch.nn.init.normal_(value, std=2 / value.shape[1] ** 0.5)
    names = comfy.utils.unet_to_diffusers(config)
    weights = {names[name]: value.detach() for name, value in network.state_dict().items()}
    return network.to(dtype).requires_grad_(False), random_unet(kind, dtype, weights=weights)


def watched_inputs(model):
    """Note what the host gives to its network: (x, timesteps) of every call."""
    from comfy.patcher_extension import WrappersMP

    seen = []

    def note(executor, x, timesteps, *args, **kwargs):
        seen.append((x.clone(), timesteps.clone()))
        return executor(x, timesteps, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", note)
    return seen


CASES = [
    ("SD15", (16, 16), 3, 1, 1, torch.float32),
    ("SD15", (16, 16), 1, 1, 2, torch.float32),
    ("SD15", (16, 16), 1, 2, 3, torch.float32),
    ("SD15", (16, 16), 3, 3, 1, torch.float32),
    ("SD15", (32, 48), 1, 1, 1, torch.float32),
    ("SD15", (33, 35), 1, 2, 1, torch.float32),
    ("SD15", (7, 11), 3, 1, 1, torch.float32),
    ("SD20", (13, 17), 1, 1, 1, torch.float32),
    ("SD15", (16, 16), 1, 1, 1, torch.bfloat16),
    ("SD15", (16, 16), 3, 2, 1, torch.float16),
]


@pytest.mark.parametrize(("kind", "grid", "batch", "chunks", "other_chunks", "dtype"), CASES)
def test_diffusers_with_the_same_weights(comfy, kind, grid, batch, chunks, other_chunks, dtype):
    network, model = twins(kind, dtype)
    positive, negative = conditioning(1, chunks), conditioning(2, other_chunks)
    seen = watched_inputs(model)
    capture = observe(model, SUBJECTS)
    cfg = 1.0 if grid[0] > 16 else 4.0
    samples = sample(model, 1, cfg, positive=positive, negative=negative, start=noise(batch, grid))
    reader = ReadScores()
    network.set_attn_processor(reader)
    x, timesteps = (t[-batch:] for t in seen[-1])
    assert len(x) == batch
    # Only the positive prompt, not repeated: diffusers knows nothing of the negative one or of its length.
    network(x, timesteps, positive[0][0].to(dtype).expand(batch, -1, -1))
    layers = capture.runs.kept[-1].layers
    assert len(layers) == len(reader.probabilities) == 7
    # Half precision rounds the networks' activations in another order; the probabilities stay float32.
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    total = 0
    for (name, (h, w)), p in zip(layers, reader.probabilities, strict=True):
        expected = torch.stack([p[..., tokens].sum(-1).sum(1).unflatten(-1, (h, w)) for tokens in TOKENS])
        assert (layers[name, (h, w)] - expected).abs().max() < tolerance, name
        total = total + F.interpolate(expected, size=grid, mode="nearest")
    aggregated = total / total.sum((-2, -1), keepdim=True)
    maps = capture.saliency(samples, "all", "last").maps
    assert maps.shape == (2, batch, *grid)
    # In multiples of the maps' mean, so that it means the same on every grid. A map is a sum of seven layers, each of
    # which differs by float32 rounding that depends on the CPU's kernels: up to 1.2e-5 was seen.
    assert (maps - aggregated).abs().max() * grid[0] * grid[1] < 4 * tolerance


def test_sum_over_steps_is_the_sum_of_the_plain_probabilities(comfy):
    """As DAAM adds them up; `mean` is the same with every step's map normalised first."""
    network, model = twins("SD15", torch.float32)
    positive, negative, grid = conditioning(1, 1), conditioning(2, 1), (16, 16)
    seen = watched_inputs(model)
    capture = observe(model, SUBJECTS)
    samples = sample(model, 4, 4.0, positive=positive, negative=negative, start=noise(1, grid))
    assert len(seen) == 4
    steps = []
    for x, timesteps in seen:
        reader = ReadScores()
        network.set_attn_processor(reader)
        network(x[-1:], timesteps[-1:], positive[0][0])
        layers = []
        for p in reader.probabilities:
            side = math.isqrt(p.shape[2])
            maps = torch.stack([p[..., tokens].sum(-1).sum(1).unflatten(-1, (side, side)) for tokens in TOKENS])
            layers.append(F.interpolate(maps, size=grid, mode="nearest"))
        steps.append(torch.stack(layers).sum(0))
    steps = torch.stack(steps)
    added = steps.sum(0)
    expected = {"sum": added / added.sum((-2, -1), keepdim=True)}
    expected["mean"] = (steps / steps.sum((-2, -1), keepdim=True)).mean(0)
    maps = {how: capture.saliency(samples, "all", how).maps for how in expected}
    for how in expected:
        # in multiples of the maps' mean; the rounding of four maps as above
        assert (maps[how] - expected[how]).abs().max() * 256 < 4e-5, how
    assert (maps["sum"] - maps["mean"]).abs().max() * 256 > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunks", [1, 3])
def test_the_hosts_basic_attention(comfy, dtype, chunks):
    from comfy.ldm.modules.attention import attention_basic

    generator = torch.Generator().manual_seed(3)
    q, k = (torch.randn(3, n, 64, generator=generator).to(dtype) for n in (65 * 67, 77 * chunks))
    columns = token_columns(TOKENS, 77 * chunks, 77 * chunks)
    ours = token_attention(q, k, 4, columns.expand(3, -1, -1))
    # Values that are one where a token belongs to the subject make the backend put out that subject's probabilities.
    for s in range(2):
        values = columns[:, s, None].expand(3, -1, 64)
        p = attention_basic(q.float(), k.float(), values, 4, attn_precision=torch.float32)
        assert (ours[s] - p.unflatten(-1, (4, 16))[..., 0].sum(-1)).abs().max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_layer_against_the_queries_and_keys_it_used(comfy, dtype):
    model = random_unet(dtype=dtype)
    used = []

    def note(attention, q, k, v, heads, *args, **kwargs):
        if k.shape[1] == 154:
            p = torch.softmax(
                torch.einsum("bqhd,bkhd->bhqk", *(t.double().unflatten(-1, (heads, -1)) for t in (q, k)))
                / math.sqrt(q.shape[-1] // heads),
                dim=-1,
            )
            # positive and negative are joined; the host puts the positive one last
            used.append([p[-2:, ..., [*tokens]].sum(-1).sum(1) for tokens in TOKENS])
        return attention(q, k, v, heads, *args, **kwargs)

    model.model_options["transformer_options"]["optimized_attention_override"] = note
    capture = observe(model, SUBJECTS)
    sample(model, 1, batch=2, positive=conditioning(1, 2), negative=conditioning(2, 2))
    layers = list(capture.runs.kept[-1].layers.values())
    assert len(layers) == len(used) == 7
    for ours, theirs in zip(layers, used, strict=True):
        assert (ours.flatten(2) - torch.stack(theirs)).abs().max() < 1e-5
