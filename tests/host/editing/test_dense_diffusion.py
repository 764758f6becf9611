"""Place Phrases in the host, against the paper's modulation of all scores, written down in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.layout import Box, Layout
from explainable_latents.nodes.core.methods.dense_diffusion import FLATTENED, DenseDiffusion
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone
from explainable_latents.nodes.core.methods.word_places import Boxes, Masks
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.dense_diffusion import install_dense_diffusion
from explainable_latents.nodes.host.editing.placed_phrases import PlacedPhrases, place_phrases
from explainable_latents.nodes.host.editing.regional_attention import install_regions
from explainable_latents.nodes.host.editing.structured_attention import install_structured_diffusion
from explainable_latents.nodes.host.editing.weighted_words import install_weights
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.editing.twins import STEPS, TARGET, WRITTEN, relative, twin
from tests.host.patches import PATCHES
from tests.host.toy_sampling import given
from tests.host.unets import CONTEXT, SUBJECTS, conditioning, noise, random_unet, sample

GRID = (15, 9)
PROMPT = "a red dog on a beach"
OWN = Encoded((TARGET[0][0],), {})
ROWS = ((2, 3), (6, 7))
ALWAYS = DenseDiffusion(window=Window(0, 1))
MASKS = torch.zeros(2, 30, 20)
MASKS[0, :, :9] = MASKS[1, 12:, 11:] = 1
PHRASES = PlacedPhrases(PROMPT, OWN, ("red dog", "beach"), ROWS, Masks(MASKS))
ALONE = [
    PhraseAlone(words, rows, torch.randn(2, CONTEXT, generator=torch.Generator().manual_seed(seed)))
    for seed, (words, rows) in enumerate(zip(PHRASES.words, ROWS, strict=True))
]


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def dense(model, method: DenseDiffusion = ALWAYS, phrases: PlacedPhrases = PHRASES):
    copy = model.clone()
    install_dense_diffusion(copy, phrases, method)
    return copy


def shares(masks: torch.Tensor, grid: tuple[int, int], latent: tuple[int, int]) -> torch.Tensor:
    """The places of each mask on a layer's grid: those that it covers to more than a half."""
    on_latent = F.interpolate(masks[:, None], size=latent, mode="area")
    return (F.interpolate(on_latent, size=grid, mode="area")[:, 0] > 0.5).flatten(1).double()


def written_down(model, method: DenseDiffusion, grid=GRID, text: torch.Tensor | None = None, masks=MASKS):
    """The model whose positive rows have attention of the paper's scores. text: in the place of the prompt."""
    copy = model.clone()
    network, sampling = copy.model.diffusion_model, copy.model.model_sampling

    def override(attention, q, k, v, heads, *args, transformer_options, **kwargs):
        out = attention(q, k, v, heads, *args, transformer_options=transformer_options, **kwargs)
        kinds, cross = transformer_options["cond_or_uncond"], k.shape[1] == 77
        sigma, levels = transformer_options["sigmas"][:1].cpu(), transformer_options["sample_sigmas"]
        step = int((levels >= sigma[0] * (1 - 1e-5)).sum()) - 1
        within = method.window.includes(step, len(levels) - 1)
        fall = (float(sampling.timestep(sigma)) / 1000) ** 5 if within else 0.0
        part, number = transformer_options["block"]
        blocks = {"input": network.input_blocks, "middle": [network.middle_block], "output": network.output_blocks}
        (transformer,) = (each for each in blocks[part][number] if hasattr(each, "transformer_blocks"))
        attn2 = transformer.transformer_blocks[transformer_options["block_index"]].attn2
        if cross and text is not None:
            told = text.double().expand(len(k), -1, -1)
            k, v = (told @ layer.weight.double().T for layer in (attn2.to_k, attn2.to_v))

        def by_head(x):
            return x.double().unflatten(-1, (heads, -1)).transpose(1, 2)

        s = by_head(q) @ by_head(k).transpose(2, 3) * (q.shape[-1] // heads) ** -0.5
        levels_of = {(-(-grid[0] // n)) * (-(-grid[1] // n)): (-(-grid[0] // n), -(-grid[1] // n)) for n in (1, 2, 4)}
        m = shares(masks, levels_of[q.shape[1]], grid)
        same = torch.einsum("sq,sk->qk", m, m) > 0
        size = 1 - method.size * same.double().mean(1)
        columns = torch.zeros(77, 2, dtype=torch.float64)
        for i, rows in enumerate(ROWS):
            columns[list(rows), i] = 1
        belongs = torch.einsum("sq,ts->qt", m, columns) > 0 if cross else same
        c = (fall * (method.cross if cross else method.own) * size)[:, None]
        c = c if method.elsewhere == FLATTENED else c * m.any(0)[:, None]
        high, low = s.amax(-1, keepdim=True), s.amin(-1, keepdim=True)
        s = s + belongs * c * (high - s) - ~belongs * c * (s - low)
        modulated = (s.softmax(-1) @ by_head(v)).transpose(1, 2).flatten(2)
        rows = len(q) // len(kinds)
        for j, kind in enumerate(kinds):
            if kind == 0:
                out[j * rows : (j + 1) * rows] = modulated[j * rows : (j + 1) * rows].to(out)
        return out

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


def assert_alike(found, expected, plain) -> None:
    """Both differ by rounding, far less than the places change."""
    assert relative(found, expected) < WRITTEN
    assert (found - expected).abs().max() < 0.02 * (plain - expected).abs().max()


@pytest.mark.parametrize(
    ("kind", "patch", "method"),
    [
        ("SD15", None, ALWAYS),
        ("SD15", "LoRA", replace(ALWAYS, elsewhere=FLATTENED, size=0.5)),
        ("SD20", None, replace(ALWAYS, cross=0.0, own=1.0)),
        ("SDXL", None, replace(ALWAYS, window=Window(0, 0.7))),
    ],
)
def test_the_latent_is_that_of_the_papers_scores(model, kind, patch, method):
    used = model if kind == "SD15" else random_unet(kind)
    used = used if patch is None else PATCHES[patch](used)
    how = {"steps": STEPS, "batch": 2, "grid": GRID}
    found, expected = sample(dense(used, method), **how), sample(written_down(used, method), **how)
    assert_alike(found, expected, sample(used, **how))


def test_phrases_encoded_alone_take_the_place_of_those_in_the_prompt_at_all_steps(model):
    text = TARGET[0][0].clone()
    for phrase in ALONE:
        text[0, list(phrase.rows)] = phrase.alone
    method, how = replace(ALWAYS, window=Window(0, 0.4)), {"batch": 2, "grid": GRID}
    found = sample(dense(model, method, replace(PHRASES, alone=ALONE)), **how)
    assert_alike(found, sample(written_down(model, method, text=text), **how), sample(dense(model, method), **how))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_strength_phrase_or_step_it_is_the_plain_run_bit_for_bit(comfy, dtype):
    model, how = random_unet(dtype=dtype), {"batch": 3, "grid": GRID}
    plain = sample(model, **how)
    nowhere = replace(PHRASES, words=(), rows=(), places=Boxes(()))
    for method, phrases in (
        (replace(ALWAYS, cross=0.0, own=0.0), replace(PHRASES, alone=ALONE)),
        (ALWAYS, nowhere),
        (replace(ALWAYS, window=Window(0, 0.0)), PHRASES),
    ):
        assert torch.equal(sample(dense(model, method, phrases), **how), plain)
    assert relative(sample(dense(model), **how), plain) > 0.005


def test_three_pictures_are_three_runs_of_one(model):
    used, start = dense(model), noise(3, GRID)
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

    assert torch.equal(negative_of(dense(model)), negative_of(model))


def test_calls_for_one_conditioning_each_and_a_longer_negative_prompt(model):
    """Hosts with little memory evaluate positive and negative apart; beside a longer text the host repeats a prompt."""
    used, how = dense(model, phrases=replace(PHRASES, alone=ALONE)), {"batch": 2, "grid": GRID}
    together = sample(used, **how)
    torch.testing.assert_close(sample(PATCHES["split calls"](used), **how), together, rtol=1e-4, atol=1e-4)
    longer = {**how, "negative": conditioning(2, 2)}
    joined, apart = sample(used, **longer), sample(PATCHES["split calls"](used), **longer)
    torch.testing.assert_close(joined, apart, rtol=1e-4, atol=1e-4)
    assert not torch.equal(joined, together)


def test_of_several_positive_prompts_only_this_one_is_edited(model):
    """Each has an area; the other one's half is the plain run's after one step."""
    left, right = {"area": (16, 8, 0, 0)}, {"area": (16, 8, 0, 8)}
    both = [*conditioning(1, **left), *conditioning(3, **right)]
    found, plain = (sample(used, steps=1, positive=both) for used in (dense(model), model))
    assert torch.equal(found[..., 8:], plain[..., 8:])
    assert not torch.equal(found[..., :8], plain[..., :8])


def test_places_are_those_of_the_whole_picture_in_a_prompt_with_an_area(model):
    """Of a box that fills the area it is a place all over; of one beside it none."""
    area = conditioning(1, area=(16, 8, 0, 0))
    how = {"steps": 1, "positive": [*area, *conditioning(3, area=(16, 8, 0, 8))]}
    beside = replace(PHRASES, places=Boxes(((Box("dog", 0.5, 0, 1, 1),), (Box("beach", 0.5, 0.5, 1, 1),))))
    assert torch.equal(sample(dense(model, phrases=beside), **how), sample(model, **how))
    filled = replace(PHRASES, rows=ROWS[:1], words=("dog",), places=Boxes(((Box("dog", 0, 0, 0.5, 1),),)))
    whole = replace(filled, places=Boxes(((Box("dog", 0, 0, 1, 1),),)))
    assert torch.equal(sample(dense(model, phrases=filled), **how), sample(dense(model, phrases=whole), **how))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler(model, sampler):
    method = replace(ALWAYS, window=Window(0, 0.7))
    runs = (sample(used, sampler=sampler) for used in (dense(model, method), written_down(model, method, (16, 16))))
    found, expected = runs
    assert relative(found, expected) < 10 * WRITTEN
    assert (found - expected).abs().max() < 0.02 * (sample(model, sampler=sampler) - expected).abs().max()


@pytest.mark.parametrize("patch", ["FreeU_V2", "PAG", "another override at call time"])
def test_beside_what_other_nodes_do_in_either_order(model, patch):
    put = PATCHES[patch]
    first, last = sample(put(dense(model)), steps=2), sample(dense(put(model)), steps=2)
    torch.testing.assert_close(first, last, rtol=1e-4, atol=1e-4)
    assert relative(first, sample(put(model), steps=2)) > 0.005


@pytest.mark.parametrize("patch", ["attn2 patched", "attn2 replaced"])
def test_attention_that_another_node_changed_is_left_alone_with_one_warning(model, patch, caplog):
    patched, method = PATCHES[patch](model), replace(ALWAYS, own=0.0)
    with caplog.at_level("WARNING", "explainable_latents"):
        found = sample(dense(patched, method))
    plain = sample(patched)
    assert torch.equal(found, plain) == (patch == "attn2 patched")  # the other replaces some layers
    told = [each.getMessage() for each in caplog.records if "leaves cross-attention" in each.getMessage()]
    assert len(told) == 1


def test_a_capture_and_a_masked_latent_on_the_same_model_in_any_order(model):
    plan = MaskedLatent(given(0.5, 1, 16, 16), noise(1, seed=4), "1, 3", Policy("keep"), Policy("reference"))
    first, last = model.clone(), dense(model)
    captures = [observe(first, SUBJECTS)]
    plan.install(first)
    plan.install(last)
    captures.append(observe(last, SUBJECTS))
    found = [sample(dense(first)), sample(last)]
    assert torch.equal(*found)
    maps = [capture.saliency(each, "all", "sum").maps for capture, each in zip(captures, found, strict=True)]
    assert torch.equal(*maps)


def test_a_cancelled_run_leaves_nothing_behind(model):
    plain, used = sample(model), dense(model)

    def cancel(step, *_):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        sample(used, callback=cancel)
    assert torch.equal(sample(model), plain)
    assert torch.equal(sample(used), sample(dense(model)))


def test_a_backend_with_heads_of_fixed_widths_leaves_these_calls_to_pytorch(model, monkeypatch):
    """As SageAttention: here it takes heads of 4 and 8 channels, the model's own."""
    from comfy.ldm.modules import attention as host

    plain = host.attention_pytorch

    def fixed(q, k, v, heads, *args, **kwargs):
        assert q.shape[-1] // heads in (4, 8), "no kernel for such heads"
        return inspect_free(q, k, v, heads, *args, **kwargs)

    inspect_free = plain.__wrapped__
    wrapped = host.wrap_attn(fixed)
    monkeypatch.setitem(host.REGISTERED_ATTENTION_FUNCTIONS, "sage", wrapped)
    expected = sample(dense(model))
    for module in ("optimized_attention", "optimized_attention_masked"):
        monkeypatch.setattr(host, module, wrapped)
    torch.testing.assert_close(sample(dense(model)), expected, rtol=1e-4, atol=1e-4)
    assert not torch.equal(sample(model), expected)


class TestMistakes:
    def test_another_prompt_at_the_sampler(self, model):
        with pytest.raises(ValueError, match=f"phrases of '{PROMPT}', but this is not what is sampled"):
            sample(dense(model), positive=conditioning(9))

    def test_two_on_one_model(self, model):
        with pytest.raises(ValueError, match="two Place Phrases are on one model: connect the model to one of them"):
            dense(dense(model))

    @pytest.mark.parametrize("other", ["Twin Sampling", "Regional Attention", "Structured Diffusion"])
    @pytest.mark.parametrize("before", [False, True])
    def test_beside_what_edits_the_same_attention(self, model, other, before):
        def put(used):
            if other == "Twin Sampling":
                return twin(used)
            used = used.clone()
            if other == "Regional Attention":
                install_regions(used, conditioning(5), "1")
            else:
                install_structured_diffusion(used, PROMPT, OWN, ALONE)
            return used

        used = dense(put(model)) if before else put(dense(model))
        with pytest.raises(ValueError, match=f"Place Phrases and {other} are on one model, but both edit"):
            sample(used)

    def test_words_that_have_weights_already_are_left_as_they_are(self, model, caplog):
        weighted, expected = model.clone(), model.clone()
        for each in (weighted, expected):
            install_weights(each).weights = {3: 2.5}
        with caplog.at_level("WARNING", "explainable_latents"):
            found = sample(dense(weighted, replace(ALWAYS, own=0.0)))
        assert torch.equal(found, sample(expected))
        assert "connect Place Phrases in front of Pause Sampling" in caplog.text


class TestPhrases:
    @pytest.mark.parametrize(
        ("prompt", "override", "words", "rows"),
        [
            ("a red dog and a blue cat on the beach", "", ("red dog", "blue cat"), ((2, 3), (6, 7))),
            ("a red dog and a blue cat on the beach", "dog, blue cat", ("red dog", "blue cat"), ((2, 3), (6, 7))),
        ],
    )
    def test_a_word_stands_for_its_phrase(self, toy, prompt, override, words, rows):
        found = self.placed(toy, prompt, override)
        assert (found.words, found.rows) == (words, rows)
        assert [phrase.rows for phrase in found.alone] == list(rows)
        alone = toy.clip.encode_from_tokens_scheduled(toy.clip.tokenize("red dog"))[0][0]
        assert torch.equal(found.alone[0].alone, alone[0, 1:3])
        assert self.placed(toy, prompt, override, alone=False).alone == ()

    def test_words_of_one_phrase_stand_for_themselves(self, toy):
        found = self.placed(toy, "a red dog on the beach", "red, dog")
        assert found.words == ("red", "dog")
        assert found.rows == ((2,), (3,))

    def test_one_of_layout_and_masks(self, toy):
        subjects = self.subjects(toy, "a dog and a cat on the beach", "")
        with pytest.raises(ValueError, match="Neither layout nor masks are connected"):
            place_phrases(toy.clip, subjects, None, None, True)
        with pytest.raises(ValueError, match="there are 1 masks for 2 words"):
            place_phrases(toy.clip, subjects, None, MASKS[:1], True)
        with pytest.raises(ValueError, match="the box of 'bus' names no word of the prompt"):
            place_phrases(toy.clip, subjects, Layout((Box("bus", 0, 0, 1, 1),)), None, True)

    def placed(self, toy, prompt: str, override: str, alone: bool = True) -> PlacedPhrases:
        return place_phrases(toy.clip, self.subjects(toy, prompt, override), None, MASKS, alone)

    def subjects(self, toy, prompt: str, override: str):
        return parse(prompt, tokenize(toy.clip, prompt), override).with_role("subject")
