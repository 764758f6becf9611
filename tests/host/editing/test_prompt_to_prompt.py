"""Prompt-to-Prompt in the host against attention whose probabilities are written down in float64 and edited."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from explainable_latents.nodes.core.words.alignment import Alignment
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor, prompt_to_prompt
from explainable_latents.nodes.host.same_prompt import Encoded
from tests.host.editing.twins import SOURCE, STEPS, TARGET, twin
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, conditioning, random_unet, sample

SAME = Alignment((77, 77), tuple((i, i, 1.0) for i in range(77)))


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def aligned(length: int) -> Alignment:
    """A word of one token exchanged for one of two, and one word of the target's own."""
    shares = [(0, 0, 1.0), (1, 1, 1.0), (2, 2, 0.5), (2, 3, 0.5)]
    return Alignment((77, length), (*shares, *((i, i + 1, 1.0) for i in range(4, 76))), frozenset({4}))


def editor(method: PromptToPrompt, source=SOURCE, target=TARGET) -> PromptToPromptEditor:
    encoded = [(name, Encoded((each[0][0],), {})) for name, each in (("old", source), ("new", target))]
    return PromptToPromptEditor(method, encoded, "")


def written_down(model, method: PromptToPrompt, batch: int, outputs: list | None = None):
    """The model with an attention that writes probabilities down and edits them as the formula says."""
    copy = model.clone()
    keys, own_keys = method.alignment.lengths

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        grid = transformer_options["activations_shape"][-2:]
        latent = transformer_options["original_shape"][-2:]
        crossed = k.shape[1] != q.shape[1]
        levels = transformer_options["sample_sigmas"]
        step = int((levels >= transformer_options["sigmas"][0] * (1 - 1e-5)).sum()) - 1

        def split(x):
            return x.double().unflatten(-1, (heads, -1)).transpose(1, 2)

        p = (split(q) @ split(k).transpose(2, 3) * (q.shape[-1] // heads) ** -0.5).softmax(-1)
        for j, kind in enumerate(transformer_options["cond_or_uncond"]):
            if kind != 0:
                continue
            source = p[2 * batch * j : 2 * batch * j + batch]
            target = p[2 * batch * j + batch : 2 * batch * (j + 1)]
            if not crossed:
                if method.replaces_self_attention(step, STEPS) and method.is_coarse(tuple(grid), tuple(latent)):
                    target[:] = source
                continue
            alpha = method.replaced(step, STEPS).double()
            e = torch.ones(own_keys, dtype=torch.float64)
            for position, weight in method.weights.items():
                e[position] = weight
            folded = source.unflatten(-1, (-1, keys)).sum(-2)
            hat = torch.zeros(*target.shape[:-1], own_keys, dtype=torch.float64)
            for i, position, share in method.alignment.shares:
                hat[..., position] += share * folded[..., i]
            mine = target.unflatten(-1, (-1, own_keys)).sum(-2)
            a = torch.ones(own_keys, dtype=torch.float64)
            a[list(method.alignment.own)] = 0
            edited = alpha * e * (a * hat + (1 - a) * mine) + (1 - alpha) * mine
            target[:] = 0
            target[..., :own_keys] = edited
        out = (p @ split(v)).transpose(1, 2).flatten(-2).to(q)
        if outputs is not None:
            outputs.append(out)
        return out

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


METHODS = {
    "swap": PromptToPrompt(aligned(77), Window(0, 1), {}, {}, Window(0, 0.0)),
    "weights and windows": PromptToPrompt(
        aligned(77), Window(0, 0.8), {3: Window(0, 0.3), 6: Window(0.5, 1)}, {1: 3.0, 5: -0.5}, Window(0, 0.7), 2
    ),
    "self-attention": PromptToPrompt(SAME, Window(0, 0.0), {}, {}, Window(0, 1), 1),
}


@pytest.mark.parametrize(
    ("kind", "chunks", "name"),
    [
        *(("SD15", 1, name) for name in METHODS),
        ("SD20", 1, "weights and windows"),
        ("SDXL", 1, "weights and windows"),
        ("SD15", 2, "weights and windows"),
    ],
)
def test_the_latent_is_that_of_probabilities_written_down(model, kind, chunks, name):
    """Two chunks of the target against one of the source: the host repeats the source's."""
    method, target = METHODS[name], conditioning(1, chunks)
    model = model if kind == "SD15" else random_unet(kind)
    if chunks == 2:
        own = method.alignment.own | frozenset(range(77, 154))
        method = replace(method, alignment=Alignment((77, 154), method.alignment.shares, own))
    how = {"steps": STEPS, "batch": 2, "positive": target}
    result = sample(twin(model, editor(method, target=target)), **how)
    expected = sample(twin(written_down(model, method, 2)), **how)
    plain = sample(twin(model), **how)
    # relative to the latent's size: float32 of the host against float64 here
    assert (result - expected).abs().max() / expected.abs().max() < 1e-4
    assert (plain - expected).abs().max() / expected.abs().max() > 1e-2


@pytest.mark.parametrize("name", ["swap", "weights and windows"])
def test_every_layer_agrees_with_probabilities_written_down(model, name):
    """To 1e-6 of the output's size, on the same inputs: the first layer that is edited."""
    method = METHODS[name]
    ours, theirs = [], []
    first = twin(model, editor(method))

    def after(out, extra_options):
        ours.append(out.clone())
        return out

    first.set_model_attn2_output_patch(after)
    other = twin(written_down(model, method, 1))

    def after_theirs(out, extra_options):
        theirs.append(out.clone())
        return out

    other.set_model_attn2_output_patch(after_theirs)
    sample(first, steps=STEPS)
    sample(other, steps=STEPS)
    assert len(ours) == len(theirs) > 10
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6 * float(theirs[0].abs().max()))


def test_an_empty_window_is_the_run_without_editor_bit_for_bit(model):
    off = PromptToPrompt(aligned(77), Window(0, 0), {}, {2: 3.0}, Window(0, 0))
    assert torch.equal(sample(twin(model, editor(off)), batch=2), sample(twin(model), batch=2))


@pytest.mark.parametrize("cross", [0.5, 1.0])
def test_equal_prompts_give_the_source_bit_for_bit(model, cross):
    seen: list = []
    method = PromptToPrompt(SAME, Window(0, cross), {}, {}, Window(0, 0.5), 1)
    sample(twin(model, editor(method, SOURCE, SOURCE), note=seen), positive=SOURCE, batch=2)
    for x in seen:
        assert torch.equal(x[:2], x[2:])


def test_the_source_keeps_its_bits_under_every_editor(model):
    plain: list = []
    sample(twin(model, note=plain), batch=2)
    for method in METHODS.values():
        seen: list = []
        sample(twin(model, editor(method), note=seen), batch=2)
        assert all(torch.equal(a[:2], b[:2]) for a, b in zip(seen, plain, strict=True))
        assert not torch.equal(seen[-1][2:], plain[-1][2:])


def test_calls_for_one_conditioning_each_and_two_prompts(model):
    """Hosts with little memory evaluate positive and negative apart; only the pair of the two texts is edited."""
    method = METHODS["swap"]
    whole = sample(twin(model, editor(method)))
    apart = sample(twin(PATCHES["split calls"](model), editor(method)))
    torch.testing.assert_close(apart, whole, rtol=1e-4, atol=1e-2)
    two = {"positive": [*TARGET, *conditioning(7, area=(8, 16, 8, 0))]}
    both = sample(twin(model, editor(method)), **two)
    assert torch.equal(both, sample(twin(model, editor(method)), **two))
    assert not torch.allclose(both, sample(twin(model), **two), atol=1e-2)


def test_a_capture_beside_it_sees_attention_before_it_is_edited_and_changes_nothing(model):
    method = METHODS["swap"]
    expected = sample(twin(model, editor(method)))
    for front in (True, False):
        copy = model.clone()
        if front:
            capture = observe(copy, SUBJECTS)
        copy = twin(copy, editor(method))
        if not front:
            capture = observe(copy, SUBJECTS)
        assert torch.equal(sample(copy), expected)
        assert capture.latest().maps.shape == (2, 1, 16, 16)


@pytest.mark.parametrize("name", ["attn2 replaced", "attn2 patched", "ToMe"])
def test_attention_that_another_node_changed_is_left_alone_with_one_warning(model, caplog, name):
    patched = PATCHES[name](model)
    method = PromptToPrompt(SAME, Window(0, 1), {}, {}, Window(0, 1), 1)
    with caplog.at_level("WARNING", "explainable_latents"):
        sample(twin(patched, editor(method)))
    told = [record.getMessage() for record in caplog.records if "Prompt-to-Prompt leaves" in record.getMessage()]
    assert 1 <= len(told) == len(set(told)) <= 4


def test_two_editors_of_the_same_attention_are_refused_and_may_follow_each_other(model):
    first = PromptToPrompt(SAME, Window(0, 0.5), {}, {}, Window(0, 0))
    second = PromptToPrompt(SAME, Window(0.5, 1), {}, {}, Window(0, 0))
    both = sample(twin(model, editor(first), editor(second)))
    torch.testing.assert_close(
        both, sample(twin(model, editor(PromptToPrompt(SAME, Window(), {}, {}, Window(0, 0))))), rtol=1e-5, atol=1e-3
    )
    with pytest.raises(ValueError, match="both edit cross-attention of the same prompt at step 0 of 3"):
        sample(twin(model, editor(first), editor(first)))


def test_prompts_that_are_not_sampled_are_refused(model):
    with pytest.raises(ValueError, match="these are not what is sampled"):
        sample(twin(model, editor(METHODS["swap"], source=conditioning(9))))


def test_words_weights_and_windows_are_read_with_the_connected_clip(toy):
    made = prompt_to_prompt(
        toy.clip,
        "a (dog:1.2) on the beach",
        "a red cat on the beach",
        "auto",
        Window(0, 0.8),
        Window(0, 0.4),
        4,
        "red: 2, cat: -0.5",
        "cat: 0.3, beach: 0.2-0.6",
    )
    assert made.table.splitlines()[:3] == ["a < a", "red (its own)", "cat (its own)"]
    assert made.method.weights == {2: 2.0, 3: -0.5}
    assert made.method.windows == {3: Window(0, 0.3), 6: Window(0.2, 0.6)}
    assert made.method.alignment.lengths == (77, 77)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": "horse: 2"}, "weights: 'horse' is not in the target prompt. It has the tokens 1:a 2:cat"),
        ({"weights": "cat"}, "weights: 'cat' is no word with a value"),
        ({"weights": "cat: much"}, "weights: 'much' is not a number"),
        ({"word_windows": "cat: now"}, "word_windows: 'now' is no part of a run"),
        ({"word_windows": "cat: 0.5-0.2"}, "0 <= start <= end <= 1"),
        ({"words": "swap", "target": "a cat"}, "words can be swapped only one for one"),
    ],
)
def test_mistakes_in_the_words_are_named(toy, changes, message):
    values = {
        "source": "a dog on the beach",
        "target": "a cat on the beach",
        "words": "auto",
        "cross": Window(0, 0.8),
        "self_attention": Window(0, 0.4),
        "coarser": 4,
        "weights": "",
        "word_windows": "",
    }
    with pytest.raises(ValueError, match=message):
        prompt_to_prompt(toy.clip, **(values | changes))
