"""Beside Attention Couple and NegPip: the subject's map in its region, against an explicit computation in float64."""

import logging

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.aggregate import aggregate
from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.one_call import probe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.regional_patches import Couple, interleaved, left_half, negpip
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

TOKENS = [list(tokens) for tokens in SUBJECTS.positions()]
LEFT, REST = left_half(), 1 - left_half()
REGION = conditioning(5)


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def text(conditioning):
    return conditioning[0][0]


def watched(model):
    """Every call's queries [rows,Q,H*d] and keys [rows,T,H*d] of the network's cross-attention, per layer."""
    seen, handles = {}, []
    for name, module in model.model.diffusion_model.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            layer, kind = name.rsplit(".", 1)
            kept = seen.setdefault(layer, {}).setdefault(kind, [])
            handles.append(module.register_forward_hook(lambda m, i, out, kept=kept: kept.append(out.clone())))
    return seen, handles


def explicit(seen, rows, masks, grid=(16, 16), period=77):
    """The aggregated map [S,B,h,w]: softmax over all keys in float64, 8 heads; `rows[k]` [B] count by `masks[k]`."""
    maps = []
    for layer in seen.values():
        (q,), (k,) = layer["to_q"], layer["to_k"]
        size = grid if q.shape[1] == grid[0] * grid[1] else (grid[0] // 2, grid[1] // 2)
        total = 0
        for at, mask in zip(rows, masks, strict=True):
            scores = (
                torch.einsum("bqhd,bthd->bhqt", *(each[at].double().unflatten(-1, (8, -1)) for each in (q, k)))
                * (q.shape[-1] / 8) ** -0.5
            )
            p = torch.softmax(scores, dim=-1).sum(1)
            p = p.unflatten(-1, (p.shape[-1] // period, period)).sum(2)
            each = torch.stack([p[..., tokens].sum(-1) for tokens in TOKENS]).unflatten(-1, size)
            total = total + each * F.interpolate(mask.unsqueeze(1).double(), size=size, mode="nearest")[0]
        maps.append(total)
    return aggregate(maps, grid)


def captured(model, install, options=None, order="couple first", **how):
    """The capture of a single call, how the network was called, and the latent. install: the other node."""
    if order == "couple first":
        observed = install(model).clone()
        capture = observe(observed, SUBJECTS, **(options or {}))
    else:
        observed = model.clone()
        capture = observe(observed, SUBJECTS, **(options or {}))
        observed = install(observed)
    seen, handles = watched(model)
    made = sample(observed, steps=1, **how)
    for handle in handles:
        handle.remove()
    assert torch.equal(made, sample(install(model), steps=1, **how))
    return capture, seen, made


def assert_shows(capture, made, expected):
    """Equal up to rounding: the capture computes in float32, and finds the masks by least squares."""
    maps = capture.saliency(made, "all", "mean").maps
    assert torch.allclose(maps, expected.float(), rtol=2e-3, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("order", ["couple first", "capture first"])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_subject_of_a_region_is_read_in_its_region(model, order, batch):
    couple = Couple([REST, LEFT], [text(REGION)])
    capture, seen, made = captured(model, couple.install, {"positive": REGION}, order, batch=batch)
    # rows: the negative prompt, the sampler's text, the region's
    expected = explicit(seen, [slice(2 * batch, 3 * batch)], [LEFT])
    assert_shows(capture, made, expected)
    maps = capture.saliency(made, "all", "mean").maps
    assert (maps[..., 8:] == 0).all()
    other = explicit(seen, [slice(batch, 2 * batch)], [LEFT])
    assert not torch.allclose(maps, other.float(), rtol=0.1)


@pytest.mark.parametrize("order", ["couple first", "capture first"])
def test_a_subject_of_the_samplers_own_text_is_read_outside_the_regions(model, order, caplog):
    couple = Couple([REST, LEFT], [text(REGION)])
    with caplog.at_level(logging.WARNING, "explainable_latents"):
        capture, seen, made = captured(model, couple.install, None, order)
    assert_shows(capture, made, explicit(seen, [slice(1, 2)], [REST]))
    (record,) = caplog.records
    assert "Couple.spread of tests.host.regional_patches" in record.message
    assert "the sampler's own prompt" in record.message


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.01), (torch.bfloat16, 0.05)])
def test_a_region_in_half_precision(comfy, dtype, tolerance):
    model = random_unet(dtype=dtype)
    couple = Couple([left_half(0.25), left_half(0.75)], [text(REGION)])
    capture, seen, made = captured(model, couple.install, {"positive": REGION})
    expected = explicit(seen, [slice(2, 3)], [couple.masks[1]])
    maps = capture.saliency(made, "all", "mean").maps
    # tolerance: what is mixed has been rounded to the model's precision
    assert torch.allclose(maps, expected.float(), rtol=tolerance, atol=0)


def test_regions_with_soft_masks_strengths_and_texts_of_other_lengths(model):
    regions = [conditioning(5), conditioning(6, 2), conditioning(7)]
    masks = [torch.full((1, 128, 128), 0.5), left_half(0.8), REST, left_half(0.3)]
    couple = Couple(masks, [text(each) for each in regions], [1.0, 1.3, 0.6, 0.9])
    how = {"negative": conditioning(2, 3)}
    for k, region in enumerate(regions):
        capture, seen, made = captured(model, couple.install, {"positive": region}, **how)
        period = text(region).shape[1]
        assert_shows(capture, made, explicit(seen, [slice(k + 2, k + 3)], [couple.masks[k + 1]], period=period))


def test_a_text_that_two_regions_share_is_read_in_both(model):
    couple = Couple([REST * 0.5 + 0.1, left_half(0.7), REST], [text(REGION), text(conditioning(1))])
    capture, seen, made = captured(model, couple.install)
    rows, masks = [slice(1, 2), slice(3, 4)], [couple.masks[0], couple.masks[2]]
    assert_shows(capture, made, explicit(seen, rows, masks))


def test_regions_that_a_conditioning_brings_along(model):
    couple = Couple([REST, LEFT], [text(REGION)])
    how = {"positive": couple.hook(conditioning(1))}
    capture, seen, made = captured(model, lambda m: m.clone(), {"positive": REGION}, **how)
    # the host calls the network for the conditioning with a hook alone: rows of the sampler's text and the region's
    for layer in seen.values():
        for kind in layer:
            layer[kind] = [each for each in layer[kind] if len(each) == 2]
    assert_shows(capture, made, explicit(seen, [slice(1, 2)], [LEFT]))


@pytest.mark.parametrize("order", ["couple first", "capture first"])
@pytest.mark.parametrize("chunks", [1, 2])
def test_beside_negpip_keys_are_counted_as_the_tokenizer_counts_tokens(model, order, chunks):
    how = {"positive": interleaved(conditioning(1), [3]), "negative": interleaved(conditioning(2, chunks))}
    capture, seen, made = captured(model, negpip, None, order, **how)
    assert_shows(capture, made, explicit(seen, [slice(1, 2)], [torch.ones(1, 128, 128)]))


@pytest.mark.parametrize("order", ["couple first", "capture first"])
@pytest.mark.parametrize("aware", [False, True])
def test_regions_beside_negpip(model, order, aware):
    region = interleaved(conditioning(5), [6])
    couple = Couple([REST, LEFT], [text(region)], interleaved=aware)
    both = (lambda m: couple.install(negpip(m))) if aware else (lambda m: negpip(couple.install(m)))
    how = {"positive": interleaved(conditioning(1)), "negative": interleaved(conditioning(2))}
    capture, seen, made = captured(model, both, {"positive": region}, order, **how)
    assert_shows(capture, made, explicit(seen, [slice(2, 3)], [LEFT]))


def test_words_share_their_probability_in_a_region(model):
    couple = Couple([REST, LEFT], [text(REGION)])
    options = {"positive": REGION, "share": "prompt words"}
    capture, _, made = captured(model, couple.install, options)
    whole = Couple([torch.zeros_like(LEFT), torch.ones_like(LEFT)], [text(REGION)])
    alone, _, plain = captured(model, whole.install, options)
    maps, expected = (
        each.saliency(latent, "all", "mean", True).maps for each, latent in ((capture, made), (alone, plain))
    )
    # nothing has been mixed before the first layer: there the same, cut to the region
    cut = expected[:2, ..., :8] / expected[:2, ..., :8].sum((-2, -1), keepdim=True)
    assert torch.allclose(maps[:2, ..., :8] * 256, cut * 256, atol=1e-3)


def test_a_probe_reads_a_region(model):
    couple = Couple([REST, LEFT], [text(REGION)])
    seen, handles = watched(model)
    found = probe(couple.install(model), conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 0, REGION)
    for handle in handles:
        handle.remove()
    expected = explicit(seen, [slice(1, 2)], [LEFT])
    assert torch.allclose(found.maps, expected.float(), rtol=2e-3, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("kind", [AttentionMasking, GradientMasking])
@pytest.mark.parametrize("at", ["0", "1"])
def test_a_masked_latent_keeps_the_subject_of_a_region_in_any_order(model, kind, at):
    couple = Couple([REST, LEFT], [text(REGION)])
    masking = kind(SUBJECTS.with_role("subject"), Shaping("quantile", 0.8, smooth_sigma=0.0), positive=REGION)
    made = []
    for first, second in ((couple.install, None), (None, couple.install)):
        patched = (first or (lambda m: m))(model).clone()
        report = MaskedLatent(masking, noise(seed=4), at, KEEP, REFERENCE).install(patched)
        patched = (second or (lambda m: m))(patched)
        made.append(sample(patched, 2))
        masks, _, _ = report.outputs(made[-1])
        inside = masks[..., :64].mean(), masks[..., 64:].mean()
        # what the prediction hangs on reaches beyond the region, attention does not
        assert inside[0] > 0.3
        assert inside[1] == 0 if kind is AttentionMasking else inside[1] < inside[0]
    assert torch.equal(*made)
