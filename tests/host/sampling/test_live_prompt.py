"""The prompt of a run that changes on its way: weights of words and other texts, with recorded answers."""

from __future__ import annotations

import json

import pytest
import torch

from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.paused_runs import install_pauses
from explainable_latents.nodes.host.editing.weighted_words import install_weights
from explainable_latents.nodes.host.parsed_words import parse_and_show
from explainable_latents.nodes.host.same_prompt import ParsedPrompt
from explainable_latents.nodes.host.sampling.pausing import PausePlan
from tests.host.unets import conditioning, random_unet, sample

STEPS, AT = 6, 3
PROMPT, OTHER = "a dog on the beach", "a red car in a city"
# The noise levels of 6 steps lie at 0, 20, 40, 60 ... percent of the schedule: this is between steps 2 and 3.
SWITCH = 0.5


class Run:
    """Samples with the toy checkpoint; `pausing` gives a model whose runs pause before step 3."""

    def __init__(self, toy, sampler: str = "euler", batch: int = 1) -> None:
        self.model, self.clip = toy.model, toy.clip
        self.negative, self.sampler, self.batch = toy.negative, sampler, batch

    def encoded(self, text: str = PROMPT) -> list:
        import nodes

        return nodes.CLIPTextEncode().encode(self.clip, text)[0]

    def captured(self):
        """A clone whose attention to the prompt's words is captured, and the capture."""
        from dataclasses import replace

        subjects, _ = parse_and_show(self.clip, PROMPT, "", "rules", "head noun", "main subject")
        clone = self.model.clone()
        return clone, observe(clone, replace(subjects, source=ParsedPrompt(self.clip, PROMPT)))

    def pausing(self, values: dict, clip: object = False, words: bool = True, alternative: list | None = None):
        clone, capture = self.captured()
        if not words:
            clone, capture = self.model.clone(), None
        answers = json.dumps([{"step": AT, "values": values}])
        plan = PausePlan(str(AT), 0, "continue", answers, alternative, self.clip if clip is True else clip or None)
        install_pauses(clone, plan, capture)
        clone.kept = capture  # a model does not keep the capture of its runs
        return clone

    def __call__(self, model, positive: list | None = None) -> torch.Tensor:
        import comfy.sample

        noise = torch.randn(self.batch, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        start = torch.zeros_like(noise)
        positive = self.encoded() if positive is None else positive
        common = (STEPS, 2.0, self.sampler, "normal", positive, self.negative, start)
        return comfy.sample.sample(model, noise, *common, disable_pbar=True, seed=0)


def between(conditioning: list, start: float, end: float) -> list:
    """The same prompt in a part of the noise schedule only, by the host's own ranges."""
    return [[context, {**options, "start_percent": start, "end_percent": end}] for context, options in conditioning]


def weighing(model, rows: dict[int, float], always: bool = False):
    """A clone whose cross-attention has values of these tokens weighed in the positive rows from step 3 on,
    or always.

    By the host's own patch of what the values are made from, of which they are a linear function.
    """
    sigma = model.get_model_object("model_sampling").percent_to_sigma(SWITCH)

    def patch(q, k, v, options):
        if not always and float(options["sigmas"][0]) > sigma:
            return q, k, v
        size = len(v) // len(options["cond_or_uncond"])
        v = v.clone()
        for i, kind in enumerate(options["cond_or_uncond"]):
            for row, weight in rows.items() if kind == 0 else ():
                if row >= v.shape[1]:
                    continue
                v[i * size : (i + 1) * size, row] *= weight
        return q, k, v

    clone = model.clone()
    clone.set_model_attn2_patch(patch)
    return clone


@pytest.mark.parametrize(("sampler", "batch"), [("euler", 3), ("heun", 1), ("dpmpp_2m", 1)])
def test_a_word_counts_by_its_weight_from_that_step_on(toy, sampler, batch):
    """The oracle: values scaled by the host's own attention patch. Powers of two are multiplied without rounding."""
    run = Run(toy, sampler, batch)
    weighed = run(run.pausing({"weights": "dog: 2, beach: -0.5"}))
    expected = run(weighing(run.model, {2: 2.0, 5: -0.5}))
    assert torch.equal(weighed, expected)
    assert not torch.allclose(weighed, run(run.model), rtol=0, atol=1e-2)
    for nothing in ({"weights": "dog: 1, beach: 1.0"}, {"weights": " ", "prompt": "  "}, {"prompt": PROMPT}):
        assert torch.equal(run(run.pausing(nothing, clip=True)), run(run.model))


@pytest.mark.parametrize(("kind", "dtype", "chunks"), [("SDXL", torch.float32, 1), ("SD15", torch.bfloat16, 2)])
def test_words_are_weighed_in_every_unet_dtype_and_size(comfy, kind, dtype, chunks):
    """The negative prompt is longer or shorter by a chunk; the network may get some rows in calls of their own."""
    model = random_unet(kind, dtype)
    how = {"positive": conditioning(1, chunks), "negative": conditioning(2, 3 - chunks), "batch": 3, "grid": (18, 26)}
    clone = model.clone()
    install_weights(clone).weights = {3: 4.0, 6: 0.0}
    weighed = sample(clone, **how)
    repeated = {row + 77 * chunk: weight for row, weight in ((3, 4.0), (6, 0.0)) for chunk in range(0, 2, chunks)}
    assert torch.equal(weighed, sample(weighing(model, repeated, always=True), **how))
    assert not torch.equal(weighed, sample(model, **how))


def test_a_model_whose_attention_cannot_be_edited_has_no_weights(comfy):
    from tests.host.families.transformers import small

    assert install_weights(small("Flux.1")) is None


@pytest.mark.parametrize(("sampler", "words"), [("euler", True), ("heun", False), ("dpmpp_2m", True)])
def test_another_text_is_sampled_from_that_noise_level_on(toy, sampler, words):
    """The oracle: the host's ranges of noise levels, with the text that its own node encodes."""
    run = Run(toy, sampler)
    exchanged = run(run.pausing({"prompt": OTHER}, clip=True, words=words))
    parts = between(run.encoded(), 0.0, SWITCH) + between(run.encoded(OTHER), SWITCH, 1.0)
    assert torch.equal(exchanged, run(run.model, parts))
    assert not torch.equal(exchanged, run(run.model))


def test_a_new_text_can_be_weighed_and_blended(toy):
    run = Run(toy)
    values = {"prompt": OTHER, "weights": "red car: 4, city: 0", "blend": 0.25}
    changed = run(run.pausing(values, clip=True, words=False, alternative=run.encoded()))
    import nodes

    other = nodes.ConditioningAverage().addWeighted(run.encoded(OTHER), run.encoded(), 0.75)[0]
    parts = between(run.encoded(), 0.0, SWITCH) + between(other, SWITCH, 1.0)
    expected = run(weighing(run.model, {2: 4.0, 3: 4.0, 6: 0.0}), parts)
    assert torch.equal(changed, expected)


def test_after_an_exchange_no_maps_are_captured_for_the_first_words(toy):
    run = Run(toy)
    model = run.pausing({"prompt": OTHER}, clip=True)
    run(model)
    run_kept = model.kept.runs.latest()
    assert [each.step for each in run_kept.saliencies] == [0, 1, 2]
    assert ["prompt was exchanged" in note for note in run_kept.notes] == [True]
    weighed = run.pausing({"weights": "dog: 2"}, clip=True)
    run(weighed)
    assert [each.step for each in weighed.kept.runs.latest().saliencies] == list(range(STEPS))


def test_the_next_run_of_the_model_begins_with_its_own_prompt_and_weights(toy):
    run = Run(toy)
    model = run.pausing({"prompt": OTHER, "weights": "car: 2"}, clip=True)
    assert torch.equal(run(model), run(model))


class Displacing:
    """A CLIP for which the host has to unload every model, as it does where both do not fit into its memory."""

    def __init__(self, clip) -> None:
        self._clip = clip

    def __getattr__(self, name: str):
        return getattr(self._clip, name)

    def encode_from_tokens_scheduled(self, *args, **kwargs):
        import comfy.model_management

        comfy.model_management.unload_all_models()
        return self._clip.encode_from_tokens_scheduled(*args, **kwargs)


def test_the_models_of_a_run_are_loaded_again_after_a_text_was_encoded(toy):
    """With patched weights, as by a LoRA: a model that is unloaded has its own weights."""
    run = Run(toy)
    run.model = run.model.clone()
    name = next(key for key in run.model.model.state_dict() if key.endswith("attn2.to_v.weight"))
    change = torch.randn(run.model.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(3))
    run.model.add_patches({name: ("diff", (change,))})
    exchanged = run(run.pausing({"prompt": OTHER}, clip=Displacing(run.clip), words=False))
    parts = between(run.encoded(), 0.0, SWITCH) + between(run.encoded(OTHER), SWITCH, 1.0)
    assert torch.equal(exchanged, run(run.model, parts))
    assert not torch.allclose(exchanged, run(toy.model, parts), rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("values", "clip", "words", "message"),
    [
        ({"weights": "cat: 2"}, False, True, "weights: 'cat' is not in the prompt. It has the tokens"),
        ({"weights": "dog: 99"}, False, True, "weights: 99 must lie between -10 and 10"),
        ({"weights": "dog: much"}, False, True, "weights: 'much' is not a number"),
        ({"weights": "dog"}, False, True, "weights: 'dog' is no word with a value"),
        ({"prompt": OTHER}, False, True, "this run has no 'prompt' to change, only cfg, weights"),
        ({"weights": "dog: 2"}, False, False, "this run has no 'weights' to change, only cfg"),
        ({"weights": "dog: 2"}, True, False, "which words the run's own prompt has is not known here"),
        ({"prompt": OTHER, "weights": "dog: 2"}, True, True, "'dog' is not in the prompt"),
        ({"prompt": "x" * 10_001}, True, True, "10,001 characters"),
    ],
)
def test_what_cannot_be_changed_is_said(toy, values, clip, words, message):
    run = Run(toy)
    with pytest.raises(ValueError, match=message):
        run(run.pausing(values, clip, words))
