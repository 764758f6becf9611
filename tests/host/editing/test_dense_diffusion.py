"""Place Phrases in the host, against the paper's modulation of all scores, written down in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.layout import Box, Layout
from explainable_latents.nodes.core.methods.dense_diffusion import FLATTENED, DenseDiffusion
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.core.methods.word_places import Boxes
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.editing.placed_phrases import PlacedPhrases, place_phrases
from explainable_latents.nodes.host.editing.regional_attention import install_regions
from explainable_latents.nodes.host.editing.weighted_words import install_weights
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.editing.positives import (
    ALONE,
    ALWAYS,
    GRID,
    MASKS,
    PLACED,
    ROWS,
    assert_alike,
    by_head,
    cross_attention_of,
    dense,
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
        cross = k.shape[1] == 77
        sigma, levels = transformer_options["sigmas"][:1].cpu(), transformer_options["sample_sigmas"]
        step = int((levels >= sigma[0] * (1 - 1e-5)).sum()) - 1
        within = method.window.includes(step, len(levels) - 1)
        fall = (float(sampling.timestep(sigma)) / 1000) ** 5 if within else 0.0
        if cross and text is not None:
            attn2, told = cross_attention_of(network, transformer_options), text.double().expand(len(k), -1, -1)
            k, v = (told @ layer.weight.double().T for layer in (attn2.to_k, attn2.to_v))
        s = scores(q, k, heads)
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
        modulated = (s.softmax(-1) @ by_head(v, heads)).transpose(1, 2).flatten(2)
        for rows in positive_rows(len(q), transformer_options):
            out[rows] = modulated[rows].to(out)
        return out

    copy.model_options["transformer_options"]["optimized_attention_override"] = override
    return copy


@pytest.mark.parametrize(
    ("kind", "patch", "method"),
    [
        ("SD15", None, ALWAYS),
        ("SD15", "LoRA", replace(ALWAYS, elsewhere=FLATTENED, size=0.5)),
        ("SD15", "ControlNet", ALWAYS),
        ("SD20", None, replace(ALWAYS, cross=0.0, own=1.0)),
        ("SDXL", None, replace(ALWAYS, window=Window(0, 0.7))),
    ],
)
def test_the_latent_is_that_of_the_papers_scores(model, kind, patch, method):
    used, how = model if kind == "SD15" else random_unet(kind), {"steps": STEPS, "batch": 2, "grid": GRID}
    if patch == "ControlNet":
        how |= controlled(TARGET, conditioning(2))
    elif patch is not None:
        used = PATCHES[patch](used)
    found, expected = sample(dense(used, method), **how), sample(written_down(used, method), **how)
    assert_alike(found, expected, sample(used, **how))


@pytest.mark.parametrize("kind", ["SD15", "SDXL"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision_it_is_off_by_what_rounding_does_to_a_plain_run(comfy, kind, dtype):
    """Rounding alone moves the latent: measured is the run without phrases, its attention by the host and once written
    down. Beside written scores the method may be off by twice that, as it rounds a query, a key and an output more."""
    model, how = random_unet(kind, dtype), {"batch": 2, "grid": GRID}
    method = replace(ALWAYS, own=1.0)
    plain, off = sample(model, **how), replace(method, cross=0.0, own=0.0)
    rounding = relative(sample(written_down(model, off), **how), plain)
    found, expected = sample(dense(model, method), **how), sample(written_down(model, method), **how)
    assert relative(found, expected) < 2 * rounding
    assert relative(plain, expected) > 4 * rounding


def test_phrases_encoded_alone_take_the_place_of_those_in_the_prompt_at_all_steps(model):
    text = TARGET[0][0].clone()
    for phrase in ALONE:
        text[0, list(phrase.rows)] = phrase.alone
    method, how = replace(ALWAYS, window=Window(0, 0.4)), {"batch": 2, "grid": GRID}
    found = sample(dense(model, method, replace(PLACED, alone=ALONE)), **how)
    assert_alike(found, sample(written_down(model, method, text=text), **how), sample(dense(model, method), **how))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_strength_phrase_or_step_it_is_the_plain_run_bit_for_bit(comfy, dtype):
    model, how = random_unet(dtype=dtype), {"batch": 3, "grid": GRID}
    plain = sample(model, **how)
    nowhere = replace(PLACED, words=(), rows=(), places=Boxes(()))
    for method, phrases in (
        (replace(ALWAYS, cross=0.0, own=0.0), replace(PLACED, alone=ALONE)),
        (ALWAYS, nowhere),
        (replace(ALWAYS, window=Window(0, 0.0)), PLACED),
    ):
        assert torch.equal(sample(dense(model, method, phrases), **how), plain)
    assert relative(sample(dense(model), **how), plain) > 0.005


def test_places_are_those_of_the_whole_picture_in_a_prompt_with_an_area(model):
    """Of a box that fills the area it is a place all over; of one beside it none."""
    area = conditioning(1, area=(16, 8, 0, 0))
    how = {"steps": 1, "positive": [*area, *conditioning(3, area=(16, 8, 0, 8))]}
    beside = replace(PLACED, places=Boxes(((Box("dog", 0.5, 0, 1, 1),), (Box("beach", 0.5, 0.5, 1, 1),))))
    assert torch.equal(sample(dense(model, phrases=beside), **how), sample(model, **how))
    filled = replace(PLACED, rows=ROWS[:1], words=("dog",), places=Boxes(((Box("dog", 0, 0, 0.5, 1),),)))
    whole = replace(filled, places=Boxes(((Box("dog", 0, 0, 1, 1),),)))
    assert torch.equal(sample(dense(model, phrases=filled), **how), sample(dense(model, phrases=whole), **how))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "euler_ancestral", "uni_pc"])
def test_any_sampler(model, sampler):
    method = replace(ALWAYS, window=Window(0, 0.7))
    runs = (sample(used, sampler=sampler) for used in (dense(model, method), written_down(model, method, (16, 16))))
    found, expected = runs
    assert relative(found, expected) < 10 * WRITTEN
    assert (found - expected).abs().max() < 0.02 * (sample(model, sampler=sampler) - expected).abs().max()


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


class OfFixedWidths:
    """An override of attention as nodes that patch SageAttention into a model have it: another backend, which ignores
    the host's and has kernels for some widths of heads alone, here those of the model. calls: how often it ran."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        self.widths = widths
        self.calls = 0

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        from comfy.ldm.modules.attention import attention_split

        assert q.shape[-1] // heads in self.widths, "no kernel for such heads"
        self.calls += 1
        return attention_split(q, k, v, heads, *args, **kwargs)

    def put(self, model):
        """On a copy of the model."""
        copy = model.clone()
        copy.model_options["transformer_options"]["optimized_attention_override"] = self
        return copy


@pytest.mark.parametrize(("kind", "widths"), [("SD15", (4, 8)), ("SDXL", (32,))])
def test_beside_another_backend_of_fixed_widths_in_either_order(comfy, kind, widths):
    """It computes all attention but that of the placed rows, for which the host's backend is asked."""
    model, other = random_unet(kind), OfFixedWidths(widths)
    expected = sample(dense(model))
    for used in (other.put(dense(model)), dense(other.put(model))):
        other.calls = 0
        torch.testing.assert_close(sample(used), expected, rtol=1e-4, atol=1e-2)
        assert other.calls > 0
    assert relative(sample(model), expected) > 0.005


class TestMistakes:
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
                used = structured(used)
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
