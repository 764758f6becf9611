"""What every place of a picture attends to, against the self-attention matrices of the same call in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from explainable_latents.nodes.host.attention.place_reader import PlaceProbe
from explainable_latents.nodes.host.one_call import call_once, noise_sigma
from tests.core.attention.test_place_maps import explicit
from tests.host.operations import at
from tests.host.patches import PATCHES
from tests.host.unets import conditioning, noise, random_unet, sample

# Probabilities and sums of them; the network's own float32 is the same in both.
CLOSE = 1e-6


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


class SelfAttentionMatrices:
    """Another node's override that notes S [N,N] of the first row, in float64, of each layer by its grid."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, int], list[np.ndarray]] = {}

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        h, w = kwargs["transformer_options"]["activations_shape"][-2:]
        if q.shape[-2] == k.shape[-2] == h * w:
            a, b = (t[0].double().unflatten(-1, (heads, -1)).transpose(0, 1) for t in (q, k))
            s = torch.softmax(a @ b.transpose(-1, -2) / math.sqrt(a.shape[-1]), dim=-1).mean(0)
            self.seen.setdefault((h, w), []).append(s.numpy())
        return attention(q, k, v, heads, *args, **kwargs)


def noting(model):
    """A clone, and what another node notes of its calls."""
    patcher, matrices = model.clone(), SelfAttentionMatrices()
    patcher.model_options["transformer_options"]["optimized_attention_override"] = matrices
    return patcher, matrices


def nothing(done, total):
    pass


def calling(patcher, latent, positive=None):
    """Makes one call of the model on a picture."""
    return lambda: call_once(patcher, positive or conditioning(1), {"samples": latent}, 0.3, 0, clean=True)


def look(patcher, latent, positive=None, progress=nothing):
    """A, and its grid, of one picture; the patcher is changed."""
    return PlaceProbe(patcher).look(calling(patcher, latent, positive), progress)


@pytest.mark.parametrize(
    ("kind", "dtype", "grid"),
    [
        ("SD15", torch.float32, (16, 16)),
        ("SD15", torch.float16, (8, 12)),
        ("SD15", torch.float32, (7, 9)),
        ("SD20", torch.bfloat16, (12, 10)),
        ("SDXL", torch.float32, (12, 16)),
        ("SDXL", torch.float16, (10, 6)),
    ],
)
def test_it_is_the_mean_of_all_layers_of_the_call(comfy, kind, dtype, grid):
    patcher, matrices = noting(random_unet(kind, dtype))
    found, own = look(patcher, noise(1, grid))
    assert own == (grid if kind != "SDXL" else tuple(-(-side // 2) for side in grid))
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - explicit(matrices.seen, own)).max() < CLOSE


@pytest.mark.parametrize("kind", ["SD15", "SD20", "SDXL"])
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_a_clean_picture_reaches_the_network_as_the_latent_itself(comfy, kind, level):
    """As the model's latents are scaled, whatever the noise level that the network is told."""
    model = random_unet(kind)
    inputs, latent = [], noise(1, (8, 6), seed=3)
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda _, args: inputs.append(args))
    try:
        for clean in (True, False):
            call_once(model.clone(), conditioning(1), {"samples": latent}, level, 7, clean=clean)
    finally:
        handle.remove()
    scaled = model.model.process_latent_in(latent)
    (clean, told, *_), (noised, same, *_) = inputs
    assert torch.allclose(clean, scaled, rtol=1e-6, atol=1e-6)
    assert torch.equal(told, same)
    sigma = noise_sigma(model, level)
    assert (noised - scaled).std() > 0.5 * sigma / math.sqrt(1 + sigma**2)


def test_the_first_conditioning_of_the_whole_picture_counts_joined_or_split(model, monkeypatch, caplog):
    """Where the host joins calls these are rows of one call, where memory is short calls of their own."""
    import nodes

    (area,) = nodes.ConditioningSetArea().append(conditioning(1), 64, 128, 0, 0, 1.0)
    alone, _ = look(model.clone(), noise())
    combined = {
        "two prompts": [*conditioning(1), *conditioning(2)],
        "one prompt twice": [*conditioning(1), *conditioning(1, strength=0.5)],
        "a part of it first": [*area, *conditioning(1)],
    }
    for name, positive in combined.items():
        for memory in (0.0, 1e30):
            with monkeypatch.context() as patch:
                patch.setattr(model.model, "memory_required", lambda *args, memory=memory, **kwargs: memory)
                caplog.clear()
                found, _ = look(model.clone(), noise(), positive)
            assert torch.allclose(found, alone, rtol=0, atol=CLOSE), name
            assert ("2 positive conditionings are combined" in caplog.text) == (name == "two prompts")


def test_a_conditioning_for_a_part_of_the_picture_is_not_enough(model):
    import nodes

    (area,) = nodes.ConditioningSetArea().append(conditioning(1), 64, 128, 0, 0, 1.0)
    with pytest.raises(ValueError, match="the positive conditioning covers only a part of the picture"):
        look(model.clone(), noise(), area)


def test_a_conditioning_for_other_noise_levels_is_not_enough(model):
    late = [[conditioning(1)[0][0], {"start_percent": 0.9, "end_percent": 1.0}]]
    with pytest.raises(ValueError, match="or not this noise level"):
        look(model.clone(), noise(), late)


def replaced_forward(x, **kwargs):
    return torch.zeros_like(x)


def module_replaced(model):
    model = model.clone()
    model.add_object_patch("diffusion_model.output_blocks.3.1.transformer_blocks.0.attn1.forward", replaced_forward)
    return model


UNREADABLE = {
    "ToMe": (PATCHES["ToMe"], "changed by TomePatchModel.execute.tomesd_m of comfy_extras.nodes_tomesd and "),
    "HyperTile": (PATCHES["HyperTile"], "changed by HyperTile.execute.hypertile_in of comfy_extras.nodes_hyper"),
    "module": (
        module_replaced,
        "layer output.3.0 was not computed where it could be seen, but by replaced_forward of "
        "tests.host.attention.test_place_reader",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_where_self_attention_cannot_be_read_the_error_names_the_node(model, name):
    patch, message = UNREADABLE[name]
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"cannot be cut into regions: .* without that node") as raised:
        look(patch(model), noise())
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["LoRA", "FreeU", "attn2 replaced", "another override at call time", "split calls"])
def test_beside_other_nodes_it_is_what_their_network_attends_to(model, name):
    patcher, matrices = noting(PATCHES[name](model))
    found, grid = look(patcher, noise())
    assert np.abs(found.numpy() - explicit(matrices.seen, grid)).max() < CLOSE


@pytest.mark.parametrize("name", ["PAG", "SAG"])
def test_guidance_that_perturbs_self_attention_is_left_out(model, name):
    """SAG replaces an attention by one of its own, whose rounding is another."""
    guided, _ = look(PATCHES[name](model), noise())
    plain, _ = look(model.clone(), noise())
    assert torch.allclose(guided, plain, rtol=0, atol=CLOSE)


def test_reading_changes_no_bit_of_the_model(model):
    before = sample(model, 2)
    patcher = model.clone()
    look(patcher, noise())
    assert torch.equal(sample(patcher, 2), before)
    assert torch.equal(sample(model, 2), before)


def test_progress_counts_the_layers_and_may_cancel(model):
    class CancelledError(Exception):
        pass

    def cancel(done, total):
        if done == 3:
            raise CancelledError

    reports, patcher = [], model.clone()
    look(patcher, noise(), progress=lambda *report: reports.append(report))
    assert reports == [(i, 7) for i in range(1, 8)]
    fresh, _ = look(model.clone(), noise())
    probe = PlaceProbe(patcher)
    with pytest.raises(CancelledError):
        probe.look(calling(patcher, noise()), cancel)
    again, _ = probe.look(calling(patcher, noise()), nothing)
    assert torch.equal(again, fresh)


def test_an_error_in_the_call_leaves_nothing_behind(model):
    """The next look is as a fresh one, and what the broken one had added up is gone."""
    patcher = model.clone()
    probe = PlaceProbe(patcher)

    def broken():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"), at("softmax", 5, broken):
        probe.look(calling(patcher, noise()), nothing)
    again, _ = probe.look(calling(patcher, noise()), nothing)
    assert torch.equal(again, look(model.clone(), noise())[0])


def test_half_precision_that_overflows_is_an_error(comfy):
    network = random_unet("SD15", torch.float16)
    network.model.diffusion_model.output_blocks[3][1].transformer_blocks[0].attn1.to_q.weight.data.fill_(6e4)
    with pytest.raises(ValueError, match="self-attention is not finite"):
        look(network, noise())
