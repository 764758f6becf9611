"""Transformers where other nodes, references, masks or frames come in, and what is refused: never a wrong number."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.attention.aggregate import normalise
from explainable_latents.nodes.core.attention.heads import joined
from explainable_latents.nodes.core.attention.probabilities import ALL_TEXT, ALL_TOKENS
from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.maps.regions import regions_of
from explainable_latents.nodes.core.methods.diffseg import segment
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.attention.place_reader import PlaceProbe
from explainable_latents.nodes.host.families.family import FAMILIES, family_of
from explainable_latents.nodes.host.families.layouts import LAYOUTS
from explainable_latents.nodes.host.families.offers import BLOCKS, GRADIENTS, GUIDANCE, KEYS
from explainable_latents.nodes.host.families.refused import REFUSED
from explainable_latents.nodes.host.one_call import call_once
from explainable_latents.nodes.host.regions import Segmenting, segment_pictures
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.families.processors import Look, with_processors
from tests.host.families.test_transformers import SUBJECTS, attended
from tests.host.families.transformers import SMALL, noise, prompt, sample, small
from tests.host.toy_sampling import KEEP, REFERENCE, masked_run


@pytest.fixture(scope="module")
def models(comfy):
    """The networks of this file, each once."""
    return {name: small(name) for name in ("Flux.1", "Qwen-Image", "SD 3.5", "Wan", "Predict2")}


def captured(name, model, positive, start=None, share=ALL_TOKENS, **how):
    """A run of the observed model whose picture is the plain one's."""
    start, observed = noise(name) if start is None else start, model.clone()
    capture = observe(observed, SUBJECTS, layers="all", share=share, **how)
    made = sample(name, observed, cfg=1.0, positive=positive, start=start)
    assert torch.equal(made, sample(name, model, cfg=1.0, positive=positive, start=start))
    return capture.runs.kept[-1]


def kernel_maps(name, model, positive, start):
    """Per attention of the run: what each subject gets, by the host's kernel with one-hot values for the text's keys.

    [S,Q] over all keys and queries. Only for attentions whose text comes first.
    """
    found, patched = [], model.clone()

    def with_one_hot_values(attention, q, k, v, heads, *args, **kwargs):
        values = torch.zeros_like(v)
        values[0, :, torch.arange(8), torch.arange(8)] = 1.0
        out = attention(q, k, values, heads, *args, **kwargs)[0].unflatten(-1, (heads, -1)).sum(1)
        found.append(torch.stack([out[:, list(tokens)].sum(-1) for tokens in SUBJECTS.positions()]))
        return attention(q, k, v, heads, *args, **kwargs)

    patched.model_options["transformer_options"]["optimized_attention_override"] = with_one_hot_values
    sample(name, patched, cfg=1.0, positive=positive, start=start)
    return found


def reference(name, side=8):
    shape = (1, 16, 1, side, side) if name == "Qwen-Image" else (1, 16, side, side)
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["Flux.1", "Qwen-Image"])
def test_reference_pictures_stand_behind_the_picture_and_take_their_share(models, name):
    positive, start = prompt(name, reference_latents=[reference(name)]), noise(name)
    run = captured(name, models[name], positive)
    assert run.notes == []
    for maps, other in zip(run.layers.values(), kernel_maps(name, models[name], positive, start), strict=True):
        places = other[:, 20 : 20 + 48].unflatten(-1, (8, 6))
        assert other.shape[-1] == 20 + 48 + 16
        assert (maps[:, 0] - places).abs().max() < 1e-6 * other.max() + 1e-6


def test_reference_pictures_whose_keys_are_kept_from_the_first_step_take_their_share(comfy):
    """ComfyUI's node Flux KV Cache: from the second step on they have keys, behind the others, and no queries."""
    from comfy_extras.nodes_flux import FluxKVCache

    name, first = "Flux.2", 512 - 20  # the host fills the text up to 512 tokens
    seen = torch.randn(1, 128, 4, 4, generator=torch.Generator().manual_seed(5))
    (model,), positive = FluxKVCache.execute(small(name)).result, prompt(name, reference_latents=[seen])
    made, found = [], []

    def with_one_hot_values(attention, q, k, v, heads, *args, **kwargs):
        values = torch.zeros_like(v)
        values[0, :, first + torch.arange(8), torch.arange(8)] = 1.0
        out = attention(q, k, values, heads, *args, **kwargs)[0].unflatten(-1, (heads, -1)).sum(1)[512:560]
        maps = torch.stack([out[:, list(tokens)].sum(-1) for tokens in SUBJECTS.positions()])
        found.append(((q.shape[2], k.shape[2]), maps.unflatten(-1, (8, 6))))
        return attention(q, k, v, heads, *args, **kwargs)

    for observing in (True, False):
        patched = model.clone()
        if observing:
            capture = observe(patched, SUBJECTS, layers="single.0", share=ALL_TOKENS)
        else:
            patched.model_options["transformer_options"]["optimized_attention_override"] = with_one_hot_values
        made.append(sample(name, patched, 2, cfg=1.0, positive=positive))
    assert torch.equal(*made)
    run = capture.runs.kept[-1]
    assert run.notes == []
    assert [shape for shape, _ in found] == [(576, 576), (576, 576), (560, 576), (560, 576)]
    for saliency, (_, other) in zip(run.saliencies, found[1::2], strict=True):
        assert (saliency.maps[:, 0] - normalise(other)).abs().max() * 48 < 1e-4


def test_a_mask_of_keys_counts(models):
    """Tokens that the network must not look at get nothing, and the others their share."""
    mask = torch.cat([torch.ones(1, 7), torch.zeros(1, 13)], dim=1).long()
    name, positive = "Qwen-Image", prompt("Qwen-Image", attention_mask=mask)
    plain, masked = (captured(name, models[name], each, share=ALL_TEXT) for each in (prompt(name), positive))
    first = next(iter(masked.layers.values()))
    assert (first - next(iter(plain.layers.values()))).abs().max() > 1e-3
    whole = captured(name, models[name], positive, share=ALL_TOKENS)
    for maps, other in zip(whole.layers.values(), kernel_maps(name, models[name], positive, noise(name)), strict=True):
        assert (maps[:, 0] - other[:, 20:].unflatten(-1, (8, 6))).abs().max() < 1e-5


def test_tokens_that_another_node_puts_before_the_text_are_refused_by_name(models):
    """As the patch of a style model does: nobody knows then where the words are."""

    def styled(args):
        more = torch.zeros_like(args["txt"][:, :4])
        ids = torch.zeros_like(args["txt_ids"][:, :4])
        return {
            **args,
            "txt": torch.cat([more, args["txt"]], dim=1),
            "txt_ids": torch.cat([ids, args["txt_ids"]], dim=1),
        }

    model = models["Flux.1"].clone()
    model.set_model_post_input_patch(styled)
    positive, observed = prompt("Flux.1"), model.clone()
    capture = observe(observed, SUBJECTS, layers="all")
    made = sample("Flux.1", observed, cfg=1.0, positive=positive)
    assert torch.equal(made, sample("Flux.1", model, cfg=1.0, positive=positive))
    assert not torch.equal(made, sample("Flux.1", models["Flux.1"], cfg=1.0, positive=positive))
    assert capture.latest() is None
    with pytest.raises(ValueError, match=r"joint-attention is not captured: .*were expected, changed by .*styled of"):
        capture.saliency(made, "all", "mean")


@pytest.mark.parametrize("name", ["OmniGen 2", "HiDream-O1"])
def test_tokens_that_the_model_itself_adds_are_not_blamed_on_another_node(comfy, name):
    """References stand between text and picture, or within the text."""
    seen = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(5))
    observed = small(name)
    positive = prompt(name, reference_latents=[seen if name == "HiDream-O1" else reference(name)])
    capture = observe(observed, SUBJECTS, layers="all")
    made = sample(name, observed, cfg=1.0, positive=positive)
    with pytest.raises(ValueError, match="were expected, reference pictures or further tokens of the model") as error:
        capture.saliency(made, "all", "mean")
    assert "another node" not in str(error.value)


def passes_on(args, extra):
    return {"img": args["img"], "txt": args["txt"]}


def test_a_patch_behind_the_input_layers_of_a_network_that_shows_it_no_text(models):
    """As AnimaLLLiteApply of the host installs one."""
    model = models["Predict2"].clone()
    model.set_model_post_input_patch(lambda args: {**args, "img": args["img"] * 1.5})
    run, plain = (captured("Predict2", each, prompt("Predict2")) for each in (model, models["Predict2"]))
    assert run.notes == []
    assert list(run.layers) == list(plain.layers)
    assert not torch.equal(run.saliencies[0].maps, plain.saliencies[0].maps)


def test_a_prompt_that_no_row_has_is_not_read_where_another_node_has_a_patch(models):
    """In a UNet such a patch may bring the prompt's text; here nobody knows whether it did."""
    model = models["Wan"].clone()
    model.set_model_attn2_patch(lambda args: args["x"] * 0.1)
    observed, other = model.clone(), prompt("Wan", seed=5, tokens=20)
    capture = observe(observed, SUBJECTS, layers="all", positive=other)
    made = sample("Wan", observed, cfg=1.0)
    with pytest.raises(ValueError, match="none of its rows has the text of the chosen prompt"):
        capture.saliency(made, "all", "mean")


def test_a_block_that_another_node_skips_is_missing_where_blocks_are_announced(models):
    model = models["Flux.1"].clone()
    model.set_model_patch_replace(passes_on, "dit", "double_block", 1)
    run = captured("Flux.1", model, prompt("Flux.1"))
    assert [layer for layer, _ in run.layers] == ["double.0", "single.0", "single.1"]
    (note,) = run.notes
    assert "joint-attention of layer double.1 was not computed where it could be seen" in note


def test_blocks_that_are_counted_are_refused_when_one_is_skipped(models):
    model = models["SD 3.5"].clone()
    model.set_model_patch_replace(passes_on, "dit", "double_block", 0)
    observed = model.clone()
    capture = observe(observed, SUBJECTS, layers="all")
    made = sample("SD 3.5", observed)
    assert torch.equal(made, sample("SD 3.5", model))
    with pytest.raises(ValueError, match="1 of 2 layers ran, and this model's layers are known by their order alone"):
        capture.saliency(made, "all", "mean")


class Unannounced(dict):
    """Transformer options that keep quiet about the block, as those of Predict2 in ComfyUI 0.24 and older."""

    def __setitem__(self, key, value):
        if key != "block_index":
            super().__setitem__(key, value)


@pytest.mark.parametrize(("tokens", "skipped"), [(20, False), (48, False), (20, True)])
def test_two_attentions_of_a_block_are_counted_in_turn_where_it_is_not_announced(models, tokens, skipped):
    """On every ComfyUI, and with as many words as places."""
    from comfy.patcher_extension import WrappersMP

    model, positive = models["Predict2"].clone(), prompt("Predict2", tokens=tokens)

    def quiet(executor, *args, **kwargs):
        return executor(*args, **kwargs | {"transformer_options": Unannounced(kwargs["transformer_options"])})

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", quiet)
    blocks = model.model.diffusion_model.blocks
    if skipped:
        model.add_object_patch("diffusion_model.blocks.0.forward", lambda x, *args, **kwargs: x)
    run, plain = captured("Predict2", model, positive), captured("Predict2", models["Predict2"], positive)
    if skipped:
        assert not run.saliencies
        assert "1 of 2 layers ran, and this model's layers are known by their order alone" in run.notes[-1]
        return
    assert len(blocks) == len(run.layers) == 2
    assert run.notes == []
    assert all(torch.equal(run.layers[layer], maps) for layer, maps in plain.layers.items())


@pytest.mark.parametrize("name", ["Wan", "Predict2"])
def test_as_many_words_as_places_are_not_mistaken_for_the_picture(models, name):
    positive, start = prompt(name, tokens=48), noise(name)
    found = attended(name, models[name], start, positive)
    run = captured(name, models[name], positive)
    for (layer, grid), maps in run.layers.items():
        for own, tokens in zip(maps[:, 0], SUBJECTS.positions(), strict=True):
            other = found[layer].text[0][..., list(tokens)].sum((-1, 0)).unflatten(-1, grid)
            assert (own - other).abs().max() <= 1e-6 * other.max()


def test_frames_are_further_pictures_of_the_batch(models):
    start = torch.randn(2, 16, 3, 8, 6, generator=torch.Generator().manual_seed(3))
    run = captured("Wan", models["Wan"], prompt("Wan"), start)
    maps = run.saliencies[0].maps
    assert maps.shape == (2, 6, 8, 6)
    for i, one in enumerate(start):
        found = attended("Wan", models["Wan"], one[None], prompt("Wan"))
        total = sum(
            torch.stack([each.text[0][..., list(tokens)].sum((-1, 0)) for tokens in SUBJECTS.positions()])
            for each in found.values()
        ).unflatten(-1, (3, 4, 3))
        other = normalise(total.repeat_interleave(2, -2).repeat_interleave(2, -1))
        assert (maps[:, 3 * i : 3 * i + 3] - other).abs().max() * 48 < 1e-4


def test_each_frame_is_replaced_by_its_own_mask_while_it_samples(models):
    """At the finished latent: each frame of each video is its own where its mask is 1, and the reference elsewhere."""
    start = torch.randn(2, 16, 3, 8, 6, generator=torch.Generator().manual_seed(3))
    reference = torch.randn(2, 16, 3, 8, 6, generator=torch.Generator().manual_seed(4))
    observed = models["Wan"].clone()
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    plan = MaskedLatent(masking, reference, "1", KEEP, REFERENCE)
    report = plan.install(observed)
    made, plain = (sample("Wan", model, start=start) for model in (observed, models["Wan"]))
    (found,) = [each.mask for each in report.manipulations(made)]
    assert found.shape == (6, 8, 6)
    assert all(0 < float(mask.mean()) < 1 for mask in found)
    assert not torch.equal(found[0], found[1])
    inside = found.view(2, 1, 3, 8, 6) == 1
    # on its way into the model and out again the reference is scaled and rounded
    assert (made - torch.where(inside, plain, reference)).abs().max() < 1e-5


def test_maps_of_several_frames_are_not_refined(models):
    observed, start = models["Wan"].clone(), torch.randn(1, 16, 3, 8, 6)
    observe(observed, SUBJECTS, refine=1)
    with pytest.raises(ValueError, match="the latent has 3 frames, and only the maps of one can be refined"):
        sample("Wan", observed, cfg=1.0, start=start)


def test_half_precision_is_read_in_float32(comfy):
    """The maps of a network in bfloat16 are those of its own queries and keys, to float32's precision.

    In bfloat16 the softmax would be off by up to 2^-9 of a probability, four hundred times as much as is allowed here.
    """
    model, look = small("Qwen-Image"), Look()
    network = model.model.diffusion_model.to(torch.bfloat16)
    network.dtype = torch.bfloat16
    positive = prompt("Qwen-Image")
    run = captured("Qwen-Image", model, positive)
    sample("Qwen-Image", with_processors(model, lambda rows: [look]), cfg=1.0, positive=positive)
    calls = {call.site.name: call for call, _ in look.seen}
    assert len(calls) == len(run.layers) == 2
    for (layer, grid), maps in run.layers.items():
        q, k, _ = calls[layer].of_picture([0])
        assert q.dtype == torch.bfloat16
        assert maps.dtype == torch.float32
        heads = calls[layer].site.heads
        q, k = (joined(each, heads).double().unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k))
        p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)[0, ..., calls[layer].site.keys]
        for own, tokens in zip(maps[:, 0], SUBJECTS.positions(), strict=True):
            other = p[..., list(tokens)].sum((-1, 0)).unflatten(-1, grid)
            assert ((own - other).abs() / other).max() < 5e-6


# What is refused, in words.


def test_layers_are_chosen_by_name_and_range_and_a_wrong_one_lists_them(models):
    def layers(wanted):
        run = captured("Flux.1", models["Flux.1"], prompt("Flux.1"))
        assert run
        observed = models["Flux.1"].clone()
        capture = observe(observed, SUBJECTS, layers=wanted)
        sample("Flux.1", observed, cfg=1.0)
        return [layer for layer, _ in capture.runs.kept[-1].layers]

    assert layers("double.1") == ["double.1"]
    assert layers("single") == ["single.0", "single.1"]
    assert layers("1-2") == ["double.1", "single.0"]
    assert layers("single.1-5, double.0") == ["double.0", "single.1"]
    assert layers("last") == ["single.1"]
    with pytest.raises(ValueError, match=r"no joint-attention layer is called 'output'; choose auto, .*double\.0, "):
        observe(models["Flux.1"].clone(), SUBJECTS, layers="output")


def test_what_a_transformer_cannot_do_names_what_can(models):
    features = GRADIENTS, BLOCKS, KEYS, GUIDANCE
    able = {needed: [each.name for each in FAMILIES if needed in each.offers] for needed in features}
    assert len(able[GRADIENTS]) == len(FAMILIES) - 1
    assert able[BLOCKS] == ["SD 1.x, SD 2.x and SDXL (a UNet with cross-attention layers)"]
    model = models["Flux.1"]
    for needed in (BLOCKS, KEYS, GUIDANCE):
        with pytest.raises(ValueError, match=f"{needed}: not for the model Flux .*{able[needed][-1].split('(')[0]}"):
            family_of(model, needed)


def test_networks_that_are_refused_by_name_are_those_of_the_host(comfy):
    """A name that the host has given up would be a sentence that nobody ever reads."""
    from pathlib import Path

    files = Path(comfy.__path__[0], "ldm").rglob("*.py")
    classes = {line.split("(")[0].split()[1] for file in files for line in file.read_text().splitlines()
               if line.startswith("class ")}  # fmt: skip
    missing = {name for name in REFUSED if name not in classes}
    assert len(missing) < len(REFUSED) / 2  # an older host has not all of them
    assert not {layout.network for layout in LAYOUTS if not layout.without} & set(REFUSED)


def test_hunyuan_video_of_another_kind_has_a_sentence_of_its_own(comfy):
    """The list of what can be read has the name of its class."""
    first = SMALL["HunyuanImage 2.1"]
    with pytest.raises(ValueError, match=r"cannot be read: HunyuanVideo 1\.5 puts tokens .* in front of the text"):
        family_of(small(replace(first, config=first.config | {"use_cond_type_embedding": True})))
    assert "HunyuanVideo" in family_of(small(first)).name


@pytest.mark.parametrize("name", ["Flux.1", "Qwen-Image", "Wan"])
def test_the_latent_outside_the_words_mask_is_the_reference(models, name):
    """A mask is found in the attention while it samples; at the end the rest is replaced. 5-D latents as well."""
    import nodes

    start, reference = {"samples": 0.5 * noise(name, 2, seed=3)}, {"samples": 0.5 * noise(name, seed=4)}
    settings = 5, 4, 3.0, "euler", "simple", prompt(name), prompt(name, 2), start, 0.9
    masking = AttentionMasking(SUBJECTS, Shaping())
    with torch.inference_mode():
        (plain,) = nodes.common_ksampler(models[name], *settings[:-1], denoise=settings[-1])
        out, masks, saliency = masked_run(models[name], settings, masking, reference, "100%", KEEP, REFERENCE)
    mask = masks[:, ::8, ::8].reshape(2, 1, *[1] * (start["samples"].ndim - 4), 16, 12)
    assert 0.05 < mask.mean() < 0.95
    assert saliency.maps.shape == (2, 2, 16, 12)
    expected = torch.where(mask > 0, plain["samples"], reference["samples"])
    assert (out["samples"] - expected).abs().max() < 1e-5


def test_a_reference_without_frames_is_one_frame(models):
    """As another model's encoder gives it, and as empty latents are; the host's samplers take such a latent, too."""
    flat, start = 0.5 * noise("Qwen-Image", seed=4).squeeze(2), {"samples": 0.5 * noise("Qwen-Image", seed=3)}
    settings = 5, 2, 3.0, "euler", "simple", prompt("Qwen-Image"), prompt("Qwen-Image", 2), start, 0.9
    masking = AttentionMasking(SUBJECTS, Shaping())
    with torch.inference_mode():
        made = [
            masked_run(models["Qwen-Image"], settings, masking, {"samples": each}, "100%", KEEP, REFERENCE)[0]
            for each in (flat, flat.unsqueeze(2))
        ]
    assert torch.equal(*(each["samples"] for each in made))


def test_an_unknown_network_lists_all_families_and_a_known_one_says_why(models):
    class Another(torch.nn.Module):
        pass

    class VaceWanModel(torch.nn.Module):
        pass

    for network, message in ((Another(), "supported are SD 1.x"), (VaceWanModel(), "this kind of Wan gives its")):
        model = models["Flux.1"].clone()
        model.add_object_patch("diffusion_model", network)
        with pytest.raises(ValueError, match=message) as error:
            family_of(model)
        listed = [family.name in str(error.value) for family in FAMILIES]
        assert all(listed) == isinstance(network, Another)


@pytest.mark.parametrize("name", ["Flux.1", "Wan"])
def test_what_places_attend_to_is_added_up_over_all_layers(models, name):
    """One picture, clean, by the oracle: the mean over layers and heads of the picture's attention to itself."""
    model, latent = models[name].clone(), {"samples": noise(name)}
    probe, look = PlaceProbe(model), Look()
    call = {"positive": prompt(name), "latent": latent, "noise_level": 0.5, "seed": 1}
    with torch.inference_mode():
        matrix, grid = probe.look(lambda: call_once(model, **call), lambda done, of: None)
        call_once(with_processors(models[name], lambda rows: [look]), **call)
    kind, parts = family_of(models[name]).picture_kind, []
    for seen, _ in look.seen:
        if seen.site.kind == kind:
            q, k, _ = seen.within_picture([0])
            q, k = (each.double().unflatten(-1, (seen.site.heads, -1)).transpose(1, 2) for each in (q, k))
            parts.append(torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1).mean((0, 1)))
    assert grid == (8, 6)
    assert len(parts) == len(family_of(models[name]).site_names(model.model.diffusion_model, kind))
    assert (matrix - torch.stack(parts).mean(0)).abs().max() < 1e-6


def test_regions_of_an_odd_latent_are_not_stretched(models):
    """Tokens of 2 x 2 pixels over 13 x 9: the regions are those of 14 x 10, of which a row and a column are cut off."""
    model, latent = models["Flux.1"], {"samples": noise("Flux.1", grid=(13, 9))}
    how = Segmenting(threshold=0.002, anchors=8)
    with torch.inference_mode():
        (found,) = segment_pictures(model, prompt("Flux.1"), latent, how)
        patched = model.clone()
        probe = PlaceProbe(patched)
        call = {"positive": prompt("Flux.1"), "latent": latent, "noise_level": how.noise_level, "seed": 0}
        matrix, grid = probe.look(lambda: call_once(patched, **call, clean=True), lambda done, of: None)
    assert grid == (7, 5)
    whole = segment(matrix, grid, (112, 80), how.threshold, how.anchors, False, lambda done, of: None)
    assert found.labels.shape == (104, 72)
    assert len(found.areas) > 1
    assert torch.equal(found.labels, regions_of(whole[:104, :72].contiguous()).labels)
    stretched = segment(matrix, grid, (104, 72), how.threshold, how.anchors, False, lambda done, of: None)
    assert not torch.equal(found.labels, regions_of(stretched).labels)
