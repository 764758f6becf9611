"""Structured Diffusion in the host, against one attention for each copy of the prompt, written down in float64."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.editing.phrases import described, phrases_alone
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.editing.positives import (
    ALONE,
    GRID,
    assert_alike,
    by_head,
    cross_attention_of,
    positive_rows,
    scores,
    structured,
)
from tests.host.editing.twins import STEPS, TARGET, WRITTEN, controlled, relative, twin
from tests.host.patches import PATCHES
from tests.host.unets import conditioning, random_unet, sample


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def copies() -> list[torch.Tensor]:
    """The prompt, and with the rows of each phrase encoded alone."""
    found = [TARGET[0][0]]
    for phrase in ALONE:
        found.append(TARGET[0][0].clone())
        found[-1][0, list(phrase.rows)] = phrase.alone
    return found


def written_down(model, texts: list[torch.Tensor]):
    """The model whose positive rows have the mean of several cross-attentions: own keys, and each text's values."""
    copy = model.clone()
    network = copy.model.diffusion_model

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        if k.shape[1] != 77:
            return attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        to_v = cross_attention_of(network, transformer_options).to_v
        seen = scores(q, k, heads).softmax(-1)
        out = (seen @ by_head(v, heads)).transpose(1, 2).flatten(2)
        for at in positive_rows(len(q), transformer_options):
            each = [seen[at] @ by_head(text.double() @ to_v.weight.double().T, heads) for text in texts]
            out[at] = torch.stack(each).mean(0).transpose(1, 2).flatten(2)
        return out.to(q)

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


@pytest.mark.parametrize(
    ("kind", "patch"), [("SD15", None), ("SD20", None), ("SDXL", None), ("SD15", "LoRA"), ("SD15", "ControlNet")]
)
def test_the_latent_is_that_of_one_attention_for_each_copy_of_the_prompt(model, kind, patch):
    used, how = model if kind == "SD15" else random_unet(kind), {"steps": STEPS, "batch": 2, "grid": GRID}
    if patch == "ControlNet":
        how |= controlled(TARGET, conditioning(2))
    elif patch is not None:
        used = PATCHES[patch](used)
    found, expected = sample(structured(used), **how), sample(written_down(used, copies()), **how)
    assert_alike(found, expected, sample(used, **how))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_phrase_or_strength_it_is_the_plain_run_bit_for_bit(comfy, dtype):
    model, how = random_unet(dtype=dtype), {"batch": 3, "grid": GRID}
    plain = sample(model, **how)
    assert torch.equal(sample(structured(model, []), **how), plain)
    assert torch.equal(sample(structured(model, strength=0.0), **how), plain)
    # a phrase that means alone what it means there: the same values, made by a call of fewer rows
    same = [PhraseAlone("red dog", (2, 3), TARGET[0][0][0, 2:4])]
    close = {torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert relative(sample(structured(model, same), **how), plain) < close
    assert relative(sample(structured(model), **how), plain) > 0.01


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler(model, sampler):
    found, expected = (sample(used, sampler=sampler) for used in (structured(model), written_down(model, copies())))
    assert relative(found, expected) < 10 * WRITTEN
    assert (found - expected).abs().max() < 0.02 * (sample(model, sampler=sampler) - expected).abs().max()


def test_in_a_twin_run_the_target_alone_is_told(model):
    note = []
    found = sample(twin(structured(model), note=note))
    plain = []
    sample(twin(model, note=plain))
    sources = [torch.stack([state[:1] for state in states]) for states in (note, plain)]
    assert torch.equal(*sources)
    torch.testing.assert_close(found, sample(structured(model)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_a_strength_that_is_no_share(model, strength):
    with pytest.raises(ValueError, match=r"is no share: give 0 \(off\) to 1"):
        structured(model, strength=strength)


class TestPhrases:
    def test_all_noun_phrases_of_the_prompt_are_encoded_alone(self, toy):
        found = phrases_alone(toy.clip, self.subjects(toy, "a red dog and a blue cat on the beach"), "")
        assert [phrase.words for phrase in found] == ["red dog", "blue cat", "beach"]
        assert [phrase.rows for phrase in found] == [(2, 3), (6, 7), (10,)]
        for phrase in found:
            alone = toy.clip.encode_from_tokens_scheduled(toy.clip.tokenize(phrase.words))[0][0]
            assert torch.equal(phrase.alone, alone[0, 1 : 1 + len(phrase.rows)])
        assert described([("red dog", (2, 3)), ("cat", (6,))]) == "red dog | tokens 2, 3\ncat | tokens 6"

    def test_weights_of_the_prompt_weigh_the_phrase_too(self, toy):
        (found,) = phrases_alone(toy.clip, self.subjects(toy, "a (red:1.4) dog on the beach"), "red dog")
        alone = toy.clip.encode_from_tokens_scheduled(toy.clip.tokenize("(red:1.4) dog"))[0][0]
        assert torch.equal(found.alone, alone[0, 1:3])

    def test_phrases_that_the_user_names(self, toy):
        prompt = r"a dog \(red\) and a cat, a cat"
        found = phrases_alone(toy.clip, self.subjects(toy, prompt), "dog (red), cat#2")
        assert [phrase.words for phrase in found] == ["dog (red)", "cat"]
        assert [len(phrase.rows) for phrase in found] == [4, 1]
        with pytest.raises(
            ValueError, match=r"phrases: 'red horse' is not in the prompt\. It has the tokens 1:a 2:dog"
        ):
            phrases_alone(toy.clip, self.subjects(toy, prompt), "red horse")

    def test_a_prompt_without_phrases(self, toy):
        found = phrases_alone(toy.clip, self.subjects(toy, ""), "")
        assert found == []
        assert described([]) == "(no phrase was found: nothing is changed)"

    def subjects(self, toy, prompt: str):
        return parse(prompt, tokenize(toy.clip, prompt))
