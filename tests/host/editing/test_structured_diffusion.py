"""Structured Diffusion in the host, against one attention for each copy of the prompt, written down in float64."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.phrases import described, phrases_alone
from explainable_latents.nodes.host.editing.structured_attention import install_structured_diffusion
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.editing.twins import STEPS, TARGET, WRITTEN, relative, twin
from tests.host.patches import PATCHES
from tests.host.toy_sampling import given
from tests.host.unets import CONTEXT, SUBJECTS, conditioning, noise, random_unet, sample

GRID = (15, 9)
OWN = Encoded((TARGET[0][0],), {})


def drawn(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, CONTEXT, generator=torch.Generator().manual_seed(seed))


PHRASES = [PhraseAlone("red dog", (2, 3), drawn(2, 11)), PhraseAlone("wide beach", (6, 7), drawn(2, 12))]


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def structured(model, phrases=PHRASES, strength: float = 1.0, encoded: Encoded = OWN):
    copy = model.clone()
    install_structured_diffusion(copy, "a red dog on a beach", encoded, phrases, strength)
    return copy


def copies() -> list[torch.Tensor]:
    """The prompt, and with the rows of each phrase encoded alone."""
    found = [TARGET[0][0]]
    for phrase in PHRASES:
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
        part, number = transformer_options["block"]
        blocks = {"input": network.input_blocks, "middle": [network.middle_block], "output": network.output_blocks}
        (transformer,) = (each for each in blocks[part][number] if hasattr(each, "transformer_blocks"))
        to_v = transformer.transformer_blocks[transformer_options["block_index"]].attn2.to_v
        kinds = transformer_options["cond_or_uncond"]

        def by_head(x):
            return x.double().unflatten(-1, (heads, -1)).transpose(1, 2)

        seen = (by_head(q) @ by_head(k).transpose(2, 3) * (q.shape[-1] // heads) ** -0.5).softmax(-1)
        out = (seen @ by_head(v)).transpose(1, 2).flatten(2)
        rows = len(q) // len(kinds)
        for j, kind in enumerate(kinds):
            if kind == 0:
                at = slice(j * rows, (j + 1) * rows)
                each = [seen[at] @ by_head(text.double() @ to_v.weight.double().T) for text in texts]
                out[at] = torch.stack(each).mean(0).transpose(1, 2).flatten(2)
        return out.to(q)

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


@pytest.mark.parametrize(("kind", "patch"), [("SD15", None), ("SD20", None), ("SDXL", None), ("SD15", "LoRA")])
def test_the_latent_is_that_of_one_attention_for_each_copy_of_the_prompt(model, kind, patch):
    used = model if kind == "SD15" else random_unet(kind)
    used = used if patch is None else PATCHES[patch](used)
    how = {"steps": STEPS, "batch": 2, "grid": GRID}
    found, expected = sample(structured(used), **how), sample(written_down(used, copies()), **how)
    assert relative(found, expected) < WRITTEN
    assert (found - expected).abs().max() < 0.02 * (sample(used, **how) - expected).abs().max()


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


def test_three_pictures_are_three_runs_of_one(model):
    used, start = structured(model), noise(3, GRID)
    together = sample(used, start=start)
    alone = torch.cat([sample(used, start=start[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)  # matrices of other sizes are added otherwise


@pytest.mark.parametrize("split", [False, True])
def test_negative_rows_keep_their_bits(model, split):
    from comfy.patcher_extension import WrappersMP

    def negative_of(used) -> torch.Tensor:
        used, found = used.clone(), []

        def see(executor, x, *args, **conds):
            out = executor(x, *args, **conds)
            kinds = args[4]["cond_or_uncond"]
            found.extend(rows for rows, kind in zip(out.chunk(len(kinds)), kinds, strict=True) if kind == 1)
            return out

        used.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "see", see)
        sample(PATCHES["split calls"](used) if split else used, steps=1, batch=2, grid=GRID)
        return torch.cat(found)

    assert torch.equal(negative_of(structured(model)), negative_of(model))


def test_calls_for_one_conditioning_each_and_a_longer_negative_prompt(model):
    """Hosts with little memory evaluate positive and negative apart; beside a longer text the host repeats a prompt."""
    used, how = structured(model), {"batch": 2, "grid": GRID}
    together = sample(used, **how)
    torch.testing.assert_close(sample(PATCHES["split calls"](used), **how), together, rtol=1e-4, atol=1e-4)
    longer = {**how, "negative": conditioning(2, 2)}
    joined, apart = sample(used, **longer), sample(PATCHES["split calls"](used), **longer)
    torch.testing.assert_close(joined, apart, rtol=1e-4, atol=1e-4)
    assert not torch.equal(joined, together)


def test_of_several_positive_prompts_only_this_one_is_told_anything(model):
    """Each has an area; the other one's half is the plain run's after one step."""
    left, right = {"area": (16, 8, 0, 0)}, {"area": (16, 8, 0, 8)}
    both = [*conditioning(1, **left), *conditioning(3, **right)]
    found, plain = (sample(used, steps=1, positive=both) for used in (structured(model), model))
    assert torch.equal(found[..., 8:], plain[..., 8:])
    assert not torch.equal(found[..., :8], plain[..., :8])


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler(model, sampler):
    found, expected = (sample(used, sampler=sampler) for used in (structured(model), written_down(model, copies())))
    assert relative(found, expected) < 10 * WRITTEN
    assert (found - expected).abs().max() < 0.02 * (sample(model, sampler=sampler) - expected).abs().max()


@pytest.mark.parametrize("patch", ["FreeU_V2", "PAG", "attn2 replaced", "another override at call time"])
def test_beside_what_other_nodes_do_in_either_order(model, patch):
    put = PATCHES[patch]
    first, last = sample(put(structured(model)), steps=2), sample(structured(put(model)), steps=2)
    plain = sample(put(model), steps=2)
    torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-4)
    assert relative(first, plain) > 0.005


def test_attention_to_a_text_that_another_node_changed_is_left_alone_with_one_warning(model, caplog):
    patched = PATCHES["attn2 patched"](model)
    with caplog.at_level("WARNING", "explainable_latents"):
        found = sample(structured(patched))
    assert torch.equal(found, sample(patched))
    told = [each.getMessage() for each in caplog.records if "leaves cross-attention" in each.getMessage()]
    assert len(told) == 1
    assert "its keys were changed by" in told[0]


def test_a_capture_and_a_masked_latent_on_the_same_model_in_any_order(model):
    plan = MaskedLatent(given(0.5, 1, 16, 16), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    first, last = model.clone(), structured(model)
    captures = [observe(first, SUBJECTS)]
    plan.install(first)
    plan.install(last)
    captures.append(observe(last, SUBJECTS))
    found = [sample(structured(first)), sample(last)]
    assert torch.equal(*found)
    maps = [capture.saliency(each, "all", "sum").maps for capture, each in zip(captures, found, strict=True)]
    assert torch.equal(*maps)


def test_in_a_twin_run_the_target_alone_is_told(model):
    note = []
    found = sample(twin(structured(model), note=note))
    plain = []
    sample(twin(model, note=plain))
    sources = [torch.stack([state[:1] for state in states]) for states in (note, plain)]
    assert torch.equal(*sources)
    torch.testing.assert_close(found, sample(structured(model)), rtol=1e-4, atol=1e-4)


def test_another_prompt_at_the_sampler_is_an_error(model):
    with pytest.raises(ValueError, match="phrases of 'a red dog on a beach', but this is not what is sampled"):
        sample(structured(model), positive=conditioning(9))


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
