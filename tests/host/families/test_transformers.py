"""What holds for every transformer of the pack's table: see test_contract.py, which does this for UNets."""

from __future__ import annotations

import functools
import gc
import math
import os
import sys
import weakref
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.aggregate import normalise
from explainable_latents.nodes.core.attention.heads import joined
from explainable_latents.nodes.core.attention.probabilities import ALL_TEXT, ALL_TOKENS, PROMPT_WORDS
from explainable_latents.nodes.core.words.subjects import Subject, Subjects
from explainable_latents.nodes.host.attention.attention_call import Processor
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.families.family import family_of
from explainable_latents.nodes.host.families.layouts import LAYOUTS
from explainable_latents.nodes.host.families.sites import CROSS, JOINT
from tests.host.families.oracles import attending
from tests.host.families.processors import Look, with_processors
from tests.host.families.transformers import SMALL, known, noise, prompt, sample, small

KNOWN = known()

# Tokens that every small prompt has, whatever its length.
SUBJECTS = Subjects(
    "a red dog on a beach",
    (
        Subject("dog", "subject", (6, 9), {"l": (3,)}),
        Subject("beach", "scene", (15, 20), {"l": (6, 7)}),
    ),
    "rules",
    {"l": (1, 2, 3, 4, 5, 6, 7)},
)


@pytest.fixture(scope="module")
def models(comfy):
    """Every small network once."""
    return {name: small(name) for name in KNOWN}


@pytest.fixture(params=KNOWN)
def name(request):
    return request.param


@pytest.fixture
def model(models, name):
    return models[name]


def layout_of(model):
    (found,) = [each for each in LAYOUTS if each.is_of(model.model.diffusion_model)]
    return found


def patch_of(model):
    return layout_of(model).patch_of(model.model.diffusion_model)[1:]


def tokens_of(name, positive):
    """How many keys the prompt has: Anima makes 512 of any prompt."""
    return 512 if name == "Anima" else positive[0][0].shape[1]


def attended(name, model, start, positive, cfg=1.0):
    """What each layer attends to in a call on one picture and its positive prompt alone, by the oracle."""
    grid = [-(-side // p) for side, p in zip(start.shape[-2:], patch_of(model), strict=True)]
    places = math.prod(grid) * (start.shape[2] if start.ndim == 5 else 1)
    with attending(name, model, tokens_of(name, positive), places) as found:
        sample(name, model, cfg=cfg, positive=positive, start=start)
    return found


def spread(maps, model, size):
    """Maps [...,N] of tokens on the latent, by indices: a latent pixel has the value of the token that it lies in."""
    ph, pw = patch_of(model)
    h, w = (-(-side // p) for side, p in zip(size, (ph, pw), strict=True))
    maps = maps.unflatten(-1, (-1, h, w))
    return maps[..., torch.arange(size[0]) // ph, :][..., torch.arange(size[1]) // pw]


def expected(name, model, start, positive, layers, share=ALL_TOKENS, words=(1, 2, 3, 4, 5, 6, 7)):
    """The aggregated maps [S,F,h,w] of one picture with F frames, by the oracle."""
    found, total = attended(name, model, start, positive), 0
    for layer in layers:
        p = found[layer].text
        if share == ALL_TEXT:
            p = p / p.sum(-1, keepdim=True)
        elif share == PROMPT_WORDS:
            p = p / p[..., list(words)].sum(-1, keepdim=True)
        total = total + torch.stack([p[0, ..., list(each)].sum((-1, 0)) for each in SUBJECTS.positions()])
    return normalise(spread(total, model, start.shape[-2:]))


# What the older ComfyUIs of `install.PINS` do not have; any other has to have all.
_NEWER = {"Krea 2", "Boogu", "Mage-Flow", "JoyImage"}
_OLDEST = _NEWER | {"Ideogram 4", "Lens", "Ernie-Image", "HiDream-O1", "PixelDiT"}
_MISSING = {
    "0.16.3": _OLDEST,
    "0.18.2": _OLDEST,
    "0.24.0": _NEWER,
}


def test_every_network_is_tested_that_this_comfyui_has(comfy):
    version = os.environ.get("COMFYUI_VERSION", "")
    assert SMALL.keys() - KNOWN.keys() == _MISSING.get(version, set())


def test_every_layout_of_the_table_is_tested(models, comfy):
    host = Path(comfy.__path__[0]).parent
    files = {layout: Path(*layout.module.split(".")).with_suffix(".py") for layout in LAYOUTS}
    here = [layout for layout in LAYOUTS if (host / files[layout]).is_file()]  # older hosts do not have all of them
    rows = {layout: [name for name, model in models.items() if layout_of(model) is layout] for layout in here}
    for layout, names in rows.items():
        kinds = " + ".join(layout.calls)
        print(f"{layout.network:32s} {layout.family:32s} {kinds:12s} {layout.order:18s} tested as {', '.join(names)}")
    assert [layout.family for layout, names in rows.items() if not names] == []
    assert all(
        len([each for each in LAYOUTS if each.is_of(model.model.diffusion_model)]) == 1 for model in models.values()
    )


def test_every_layer_is_seen_in_running_order_and_has_the_attention_of_the_networks_own_modules(name, model):
    start, positive = noise(name), prompt(name)
    found, observed = attended(name, model, start, positive), model.clone()
    capture = observe(observed, SUBJECTS, layers="all", share=ALL_TOKENS)
    made = sample(name, observed, cfg=1.0, positive=positive, start=start)
    assert torch.equal(made, sample(name, model, cfg=1.0, positive=positive, start=start))
    run, family = capture.runs.kept[-1], family_of(model)
    assert run.notes == []
    assert tuple(layer for layer, _ in run.layers) == family.site_names(model.model.diffusion_model, family.text_kind)
    for (layer, grid), maps in run.layers.items():
        p = found[layer].text[0]
        for own, tokens in zip(maps[:, 0], SUBJECTS.positions(), strict=True):
            other = p[..., list(tokens)].sum((-1, 0)).unflatten(-1, grid)
            assert (own - other).abs().max() <= 1e-6 * other.abs().max()


CASES = {
    "batch 3, longer text": {"batch": 3, "tokens": 45, "share": ALL_TEXT},
    "odd sides, as long as the negative": {"grid": (13, 9), "tokens": 30},
}


# Sides for networks that fail on odd ones themselves.
_EVEN = {"Kandinsky 5": (14, 10), "PixArt": (42, 38), "HiDream-O1": (288, 160)}


@pytest.mark.parametrize("case", CASES)
def test_the_prompts_rows_and_keys_are_found_and_the_picture_is_unchanged(name, model, case):
    share, how = CASES[case].get("share", ALL_TOKENS), CASES[case]
    if name == "SD 3.5":
        how = how | {"tokens": 3 * 77 if how["tokens"] == 45 else 2 * 77}
    if name == "HunyuanDiT":
        how = how | {"tokens": how["tokens"] + 77}
    if name == "PixelDiT":  # its encoder gives no other number
        how = how | {"tokens": 300}
    if "grid" in how and name in _EVEN:
        how = how | {"grid": _EVEN[name]}
    start = noise(name, how.get("batch", 1), how.get("grid"))
    positive, observed = prompt(name, tokens=how["tokens"]), model.clone()
    capture = observe(observed, SUBJECTS, layers="all", share=share)
    made = sample(name, observed, positive=positive, start=start)
    assert torch.equal(made, sample(name, model, positive=positive, start=start))
    layers = family_of(model).site_names(model.model.diffusion_model, family_of(model).text_kind)
    each = [expected(name, model, one[None], positive, layers, share) for one in start]
    found, other = capture.runs.kept[-1].saliencies[0].maps, torch.cat(each, dim=1)
    assert found.shape == other.shape == (2, len(start), *start.shape[-2:])
    # In multiples of the maps' mean; calls of other shapes round the activations in other orders.
    assert (found - other).abs().max() * math.prod(start.shape[-2:]) < 1e-4


def test_a_layers_own_map_is_labelled_with_its_grid_on_an_odd_latent(models):
    observed = models["Flux.1"].clone()
    capture = observe(observed, SUBJECTS, layers="double")
    made = sample("Flux.1", observed, cfg=1.0, start=noise("Flux.1", grid=(13, 9)))
    each = capture.saliency(made, "subject", "mean", each_layer=True)
    assert each.labels == ("dog, double.0 (7x5)", "dog, double.1 (7x5)")
    assert each.maps.shape == (2, 1, 13, 9)


def test_shares_of_the_prompts_words_and_the_usual_layers(name, model):
    start, positive, observed = noise(name), prompt(name), model.clone()
    capture = observe(observed, SUBJECTS, share=PROMPT_WORDS)
    sample(name, observed, cfg=1.0, positive=positive, start=start)
    run = capture.runs.kept[-1]
    family = family_of(model)
    layers = family.usual_layers(model.model.diffusion_model)
    assert tuple(layer for layer, _ in run.layers) == layers
    other = expected(name, model, start, positive, layers, PROMPT_WORDS)
    assert (run.saliencies[0].maps - other).abs().max() * 192 < 1e-4
    if family.text_kind == JOINT:
        names = family.site_names(model.model.diffusion_model, JOINT)
        part = [each for each in names if each.split(".")[0] == names[0].split(".")[0]]
        assert list(layers) == part[len(part) // 2 :]


def test_what_a_picture_attends_to_in_itself(name, model):
    """At each site of the kind that looks at the picture: the places' attention to places, by the oracle if joint."""
    look, family = Look(), family_of(model)
    sample(name, with_processors(model, lambda rows: [look]), cfg=1.0)
    found, network = attended(name, model, noise(name), prompt(name)), model.model.diffusion_model
    calls = [(call, out) for call, out in look.seen if call.site.kind == family.picture_kind]
    assert tuple(call.site.name for call, _ in calls) == family.site_names(network, family.picture_kind)
    for call, out in calls:
        q, k, mask = call.within_picture([0])
        heads = call.site.heads
        q, k = (each.double().unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k))
        p = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)
        assert mask is None or not mask.any()  # Lens always has one, here of nothing
        if call.site.kind == JOINT:
            own = found[call.site.name].picture
            assert (p - own / own.sum(-1, keepdim=True)).abs().max() < 1e-5
        else:
            v = joined(call.v, heads).double().unflatten(-1, (heads, -1)).transpose(1, 2)
            assert (out - (p @ v[:1]).transpose(1, 2).flatten(2)).abs().max() < 1e-4


def test_the_output_of_words_and_places(models, monkeypatch):
    """Read from the attention's own output by another override; only where words have one.

    Where the network announces no attention there is no override: there the host's own function is watched.
    """
    for name, model in models.items():
        outs, family, observed = [], family_of(model), model.clone()
        if not family.words_have_output:
            with pytest.raises(ValueError, match="words have no output"):
                observe(observed, SUBJECTS, space="output")
            continue

        def keep(attention, *args, outs=outs, **kwargs):
            out = attention(*args, **kwargs)
            outs.append(joined(out, out.shape[1]) if out.ndim == 4 else out)
            return out

        if hidden := layout_of(model).hidden:
            file = sys.modules[type(model.model.diffusion_model).__module__]
            monkeypatch.setattr(file, hidden[1], functools.partial(keep, getattr(file, hidden[1])))
        observed.model_options["transformer_options"]["optimized_attention_override"] = keep
        capture = observe(observed, SUBJECTS, space="output", layers="all")
        sample(name, observed, cfg=1.0)
        monkeypatch.undo()
        look = Look()
        sample(name, with_processors(model, lambda rows, look=look: [look]), cfg=1.0)
        run, sites = capture.runs.kept[-1], {call.site.name: call.site for call, _ in look.seen}
        longest = max(out.shape[1] for out in outs)
        outs = [out for out in outs if out.shape[1] == longest]
        assert len(outs) == len(sites) == len(run.layers)
        for out, ((layer, grid), maps) in zip(outs, run.layers.items(), strict=True):
            first, at = sites[layer].keys.start, sites[layer].queries
            first += 492 if name == "Flux.2" else 0
            for own, tokens in zip(maps[:, 0], SUBJECTS.positions(), strict=True):
                word = out[0, [first + token for token in tokens]].double().mean(0)
                scores = (out[0, at].double() @ word).unflatten(-1, grid)
                assert (own - (scores - scores.min())).abs().max() <= 1e-5 * scores.abs().max()


# Editors.


class Edit(Processor):
    """Gives rows what `change(q, k, v)` says, as `with_rows` takes it.

    Where a mask says which keys count, it gives them other values instead.
    """

    kinds = (CROSS, JOINT)

    def __init__(self, rows, change):
        self.rows = rows
        self.change = change

    def edit(self, call):
        q, k, v, mask = call.of_rows(self.rows)
        return call.with_rows(self.rows, **(self.change(q, k, v) if mask is None else {"v": v.flip(-2)}))


class Probabilities(Processor):
    """Takes a part of the third text key's probability away and gives it to the first."""

    kinds = (CROSS, JOINT)

    def __init__(self, rows, by):
        self.rows = rows
        self.by = by

    def edit(self, call):
        tokens = call.site.keys.start + torch.tensor([0, 2])
        p = call.probabilities(self.rows, tokens)[..., 1:] * self.by
        return call.with_change(self.rows, tokens, torch.cat([p, -p], dim=-1))


def more_keys(q, k, v):
    return {"k": torch.cat([k, k[..., :5, :] * 2], dim=-2), "v": torch.cat([v, v[..., 5:10, :]], dim=-2)}


@pytest.mark.parametrize("edit", [more_keys, Probabilities], ids=lambda edit: edit.__name__)
def test_an_editor_changes_the_rows_that_it_names_and_no_bit_of_the_others(name, model, edit):
    start = noise(name, 3)

    def make(rows):
        return [Probabilities(rows[1], 0.5) if edit is Probabilities else Edit(rows[1], edit)]

    out, plain = sample(name, with_processors(model, make), start=start), sample(name, model, start=start)
    assert torch.equal(out[[0, 2]], plain[[0, 2]])
    assert (out[1] - plain[1]).abs().max() > 1e-5


def test_an_editor_that_edits_nothing_changes_no_bit(name, model):
    plain = sample(name, model)
    assert torch.equal(sample(name, with_processors(model, lambda rows: [Probabilities(rows[0], 0.0)])), plain)


# Other nodes, and what is left.


def scaled(attention, *args, **kwargs):
    return attention(*args, **kwargs) * 0.9


def test_another_override_stays_in_effect_in_any_order_of_nodes(name, model):
    """Of these networks another node's override changes what later layers get, but not what the first one looks at."""

    def install(patched):
        patched.model_options["transformer_options"]["optimized_attention_override"] = scaled
        return patched

    made, maps = sample(name, install(model.clone())), []
    for first in (True, False):
        patched = install(model.clone()) if first else model.clone()
        capture = observe(patched, SUBJECTS, layers="all")
        patched = patched if first else install(patched)
        assert torch.equal(sample(name, patched), made)
        maps.append(capture.runs.kept[-1].saliencies[0].maps)
    assert torch.equal(*maps)
    # the host asks no override about attention that it does not announce, and with this pack it is the same
    assert torch.equal(made, sample(name, model)) == (layout_of(model).hidden is not None)


def test_nothing_is_left_when_a_run_ends_or_fails(name, model):
    class Breaks(Look):
        def see(self, call, out):
            self.seen += [weakref.ref(each) for each in (call.q, call.k, out)]
            if len(self.seen) == 6 and self.error:
                raise self.error

    plain, before = sample(name, model), state(model)
    for fails in (False, True):
        breaks = Breaks()
        breaks.error = RuntimeError("no memory") if fails else None
        patched = with_processors(model, lambda rows, breaks=breaks: [breaks])
        capture = observe(patched, SUBJECTS)
        with pytest.raises(RuntimeError, match="no memory") if fails else nullcontext():
            sample(name, patched)
        breaks.error = None
        gc.collect()
        assert [each for each in breaks.seen if each() is not None] == []
        assert len(capture.runs.kept) == (not fails)
    assert state(model) == before
    assert torch.equal(sample(name, model), plain)


def state(model):
    """All that a run may have left on a model."""
    network = model.model.diffusion_model
    return (
        str(model.model_options),
        str(model.wrappers),
        [
            {name: list(value) if isinstance(value, dict) else None for name, value in vars(module).items()}
            for module in network.modules()
        ],
    )


# Maps sharpened by what the picture attends to in itself.


@pytest.mark.parametrize("grid", [(16, 12), (13, 9)], ids=str)
def test_maps_are_refined_by_the_pictures_own_part_of_joint_attention(models, grid):
    """One power: the mean over the last three layers of S A, S made of the oracle's attention of places to places."""
    for name in ("Qwen-Image", "Flux.1", "SD 3.5", "Z-Image", "Lumina 2"):
        model, start, positive = models[name], noise(name, grid=grid), prompt(name)
        found, observed = attended(name, model, start, positive), model.clone()
        capture = observe(observed, SUBJECTS, layers="all", share=ALL_TEXT, refine=1)
        sample(name, observed, cfg=1.0, positive=positive, start=start)
        p = [each.text / each.text.sum(-1, keepdim=True) for each in found.values()]
        maps = sum(
            torch.stack([each[0, ..., list(tokens)].sum((-1, 0)) for tokens in SUBJECTS.positions()]) for each in p
        )
        spreading = [(each.picture / each.picture.sum(-1, keepdim=True))[0].mean(0) for each in found.values()][-3:]
        refined = torch.stack([maps @ s.T for s in spreading]).mean(0)
        other = normalise(spread(refined, model, grid))
        assert (capture.runs.kept[-1].saliencies[0].maps - other).abs().max() * math.prod(grid) < 1e-4


def test_words_that_are_not_in_the_prompt_have_the_keys_of_each_cross_attention(models):
    """What makes keys of the prompt's own context makes the keys that the layer has."""
    for name in ("Predict2", "Wan"):
        model, look, positive = models[name], Look(), prompt(name)
        sample(name, with_processors(model, lambda rows, look=look: [look]), cfg=1.0, positive=positive)
        made = family_of(model).key_layers(model.model.diffusion_model)
        calls = [call for call, _ in look.seen if call.site.kind == CROSS]
        assert [call.site.name for call in calls] == list(made)
        for call in calls:
            own = joined(call.k, call.site.heads)[0, call.site.keys]
            with torch.inference_mode():
                assert (made[call.site.name](positive[0][0][0]) - own).abs().max() < 1e-5


def test_a_map_keeps_its_place_on_an_odd_latent():
    """Tokens of 2 x 2 pixels over 3 x 5 pixels: repeated and cut, nothing interpolated."""
    from explainable_latents.nodes.core.attention.aggregate import on_latent

    maps = torch.arange(6.0).view(1, 2, 3)
    assert on_latent(maps, (2, 2), (3, 5)).tolist() == [[[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]]
    assert on_latent(maps, (2, 2), (4, 6)) is maps
    assert on_latent(maps, None, (3, 5)) is maps
    whole = F.interpolate(maps[None], size=(4, 6), mode="nearest")[0]
    assert torch.equal(on_latent(maps, (2, 2), (3, 6)), whole[:, :3])
