"""Captures and reports under every way in which ComfyUI caches: what is shown belongs to the latent it is shown for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.tools.comfyui.client import ComfyClient, Result
from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.install import installed
from tests.tools.comfyui.server import ComfyServer
from tests.tools.thorough import further

from .conftest import SERVER_NODES

# Newer hosts have a second threshold of the RAM-pressure cache, for what earlier runs left.
TWO_THRESHOLDS = "at most two values" in (installed().tree / "comfy" / "cli_args.py").read_text(encoding="utf-8")


def ram_pressure(gigabytes: str) -> tuple[str, ...]:
    """A RAM-pressure cache that keeps so much memory free."""
    return ("--cache-ram", *[gigabytes] * (2 if TWO_THRESHOLDS else 1))


MODES = {
    "default": (),
    "classic": ("--cache-classic",),
    "lru": ("--cache-lru", "60"),
    "none": ("--cache-none",),
    "ram with room": ram_pressure("0.001"),
}
if TWO_THRESHOLDS:  # older hosts collect garbage once for every entry that they drop: minutes
    MODES["ram always short"] = ram_pressure("100000")
# Those that `make test` has: each is another server.
SAMPLED = ("default", "lru", "ram with room")
KEEPS_OTHER_SEEDS = ("lru", "ram with room")
KEEPS_THE_LAST_RUN = ("default", "classic", *KEEPS_OTHER_SEEDS)

PROMPT = "a dog on the beach"
SHAPING = {
    "role": "subject",
    "rule": "mean",
    "value": 0.2,
    "combine": "sum",
    "invert": False,
    "smooth_sigma": 0.0,
    "smooth_size": 3,
    "dilate_size": 3,
    "dilate_iterations": 0,
}
REPLACED = {"manipulate_at": "1", "inside": "keep", "outside": "reference", "inside_timestep": 1, "outside_timestep": 1}
SAMPLING = {"steps": 3, "cfg": 2.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(seed: int, role: str = "all", override: str = "") -> dict[str, dict[str, Any]]:
    """Capture and masked latent on one sampler; the report reads the latent behind a node that changes nothing."""
    read = {"role": role, "over_steps": "each", "each_layer": False}
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="toy.safetensors"),
        "parse": node(
            "ELParseSubjects", clip=["model", 1], text=PROMPT, parser="rules", override=override, words="head noun"
        ),
        "capture": node(
            "ELCaptureAttention",
            model=["model", 0],
            subjects=["parse", 0],
            start_percent=0.0,
            end_percent=1.0,
            layers="all",
            resize="nearest",
            share="all tokens",
        ),
        "picture": node("EmptyImage", width=128, height=128, batch_size=1, color=0x804020),
        "reference": node("VAEEncode", pixels=["picture", 0], vae=["model", 2]),
        "masking": node("ELMaskFromAttention", subjects=["parse", 0], layers="all", **SHAPING),
        "patch": node(
            "ELMaskedLatentModel", model=["capture", 0], reference=["reference", 0], masking=["masking", 0], **REPLACED
        ),
        "positive": node("CLIPTextEncode", clip=["model", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["model", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "sampler": node(
            "KSampler",
            model=["patch", 0],
            seed=seed,
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["empty", 0],
            **SAMPLING,
        ),
        "maps": node("ELAttentionSaliency", attention=["capture", 1], samples=["sampler", 0], **read),
        "numbers": node("TestNumbers", saliency=["maps", 0]),
        "report": node("ELMaskedLatentReport", report=["patch", 1], samples=["sampler", 0]),
        "reported": node("TestNumbers", saliency=["report", 1]),
    }


def unchanged(workflow: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same workflow whose report has to be read anew: its latent passes a node that changes nothing."""
    times_one = node("LatentMultiply", samples=["sampler", 0], multiplier=1.0)
    report = node("ELMaskedLatentReport", report=["patch", 1], samples=["times one", 0])
    return {**workflow, "times one": times_one, "report": report}


def numbers(result: Result, name: str = "numbers") -> dict[str, list[float]]:
    """Label -> map."""
    return json.loads(result.text(name))


def of_word(word: str, maps: dict[str, list[float]]) -> dict[str, list[float]]:
    """Its maps of all steps."""
    return {label: values for label, values in maps.items() if label.startswith(word)}


@pytest.fixture(scope="module", params=[mode if mode in SAMPLED else further(mode) for mode in MODES])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def cached(mode: str, request: pytest.FixtureRequest) -> Iterator[ComfyClient]:
    """A client of a server that caches in this mode; the default one is the session's."""
    if mode == "default":
        with ComfyClient(request.getfixturevalue("server")) as client:
            yield client
        return
    with ComfyServer(custom_nodes=[SERVER_NODES], arguments=MODES[mode]) as server, ComfyClient(server) as client:
        yield client


def test_maps_and_report_belong_to_the_latent_after_going_back_to_an_earlier_seed(cached: ComfyClient, mode: str):
    first, second = cached.run(graph(1)), cached.run(graph(2))
    assert list(numbers(first)) == [f"{word}, step {j}" for j in range(3) for word in ("dog", "beach")]
    assert numbers(first) != numbers(second)
    back = cached.run(unchanged(graph(1, "subject")))
    assert ("sampler" in back.cached) == (mode in KEEPS_OTHER_SEEDS)
    assert numbers(back) == of_word("dog", numbers(first))
    assert numbers(back, "reported") == numbers(first, "reported") != numbers(second, "reported")


def test_reading_a_capture_in_another_way_does_not_sample_again(cached: ComfyClient, mode: str):
    """Nor does a copy of Parse Subjects with another id."""
    first = cached.run(graph(3))
    again = cached.run(unchanged(graph(3, "subject")))
    assert ("sampler" in again.cached) == (mode in KEEPS_THE_LAST_RUN)
    assert numbers(again) == of_word("dog", numbers(first))
    copied = json.loads(json.dumps(graph(3)).replace('"parse"', '"copy"'))
    result = cached.run(copied)
    assert ("sampler" in result.cached) == (mode in KEEPS_THE_LAST_RUN)
    assert numbers(result) == numbers(first)


def inverted(colour: int) -> dict[str, dict[str, Any]]:
    """A twin run beside the recorded path of a picture of one colour, with maps of its target."""
    workflow = graph(1, "subject")
    for name in ("masking", "patch", "report", "reported"):
        del workflow[name]
    prompts = {"positive": ["positive", 0], "negative": ["negative", 0]}
    how = {"steps": 3, "scheduler": "normal", "cfg": 1.0, "denoise": 1.0}
    more = {"iterations": 1, "label": "higher level", "try_back": False}
    workflow["picture"]["inputs"]["color"] = colour
    workflow["inverted"] = node(
        "ELInvertPicture", model=["model", 0], **prompts, latent=["reference", 0], **how, **more
    )
    recorded = {"source_path": "recorded", "blend_after": 0.2, "trajectory": ["inverted", 0]}
    workflow["twin"] = node("ELTwinSamplingModel", model=["capture", 0], source=["positive", 0], **recorded)
    workflow["sampler"]["inputs"]["model"] = ["twin", 0]
    return workflow


def test_a_recorded_path_is_that_of_the_picture_after_going_back_to_an_earlier_one(cached: ComfyClient, mode: str):
    """The trajectory is a value of the node that made it, so the host's cache alone decides whether it is made anew."""
    first, second = (cached.run(inverted(colour)) for colour in (0x804020, 0x2040C0))
    assert numbers(first) != numbers(second)
    assert numbers(cached.run(inverted(0x804020))) == numbers(first)


def edited(seed: int) -> dict[str, dict[str, Any]]:
    """A picture by every editing method that has a model of its own, from one checkpoint, prompt and seed."""
    plain = graph(seed)
    workflow = {name: plain[name] for name in ("model", "parse", "positive", "negative", "empty", "sampler")}
    workflow["other"] = node("CLIPTextEncode", clip=["model", 1], text="a cat on the road")
    workflow["layout"] = node(
        "ELLayoutFromText", text="dog: left half", width=128, height=128, numbers="auto", order="auto"
    )
    windows = {"start": 0.0, "end": 1.0, "layers": "auto"}
    look = {"prompt": ["other", 0], "appearance_path": "generated", "guidance": 3.5, "statistics_start": 0.3}
    look |= {"structure_every": 5, "structure_end": 0.6, **windows}
    editors = {
        "MasaCtrl": node("ELMutualSelfAttention", **windows),
        "Plug-and-Play": node("ELPlugAndPlay", attention_end=0.5, feature_end=0.8, layers="auto", feature_block="auto"),
        "Cross-Image Attention": node("ELCrossImageAttention", contrast=1.67, coarse_end=1.0, **look),
        "Eye-for-an-Eye": node("ELEyeForAnEye", **look),
    }
    models = {}
    for name, editor in editors.items():
        workflow[f"{name} editor"] = editor
        how = {"source_path": "generated", "blend_after": 0.2, "own_start": False, "editors": [f"{name} editor", 0]}
        models[name] = node("ELTwinSamplingModel", model=["model", 0], source=["other", 0], **how)
    models["Regional Attention"] = node(
        "ELRegionalAttentionModel", model=["model", 0], regions=["other", 0], ratios="1", base_share=0.5
    )
    of_words = {"model": ["model", 0], "clip": ["model", 1], "subjects": ["parse", 0]}
    models["Structured Diffusion"] = node("ELStructuredDiffusionModel", **of_words, strength=1.0, phrases="dog")
    strengths = {"cross_strength": 1.0, "self_strength": 0.3, "end": 1.0, "size_regularisation": 1.0}
    models["Place Phrases"] = node(
        "ELDenseDiffusionModel",
        **of_words,
        layout=["layout", 0],
        role="all",
        elsewhere="as it is",
        phrases_alone=True,
        **strengths,
    )
    sampler = workflow.pop("sampler")["inputs"]
    for name, model in models.items():
        workflow[name] = model
        workflow[f"{name} sampler"] = node("KSampler", **{**sampler, "model": [name, 0]})
        workflow[f"{name} decode"] = node("VAEDecode", samples=[f"{name} sampler", 0], vae=["model", 2])
        workflow[f"{name} picture"] = node("PreviewImage", images=[f"{name} decode", 0])
    return workflow


def test_edited_pictures_are_the_same_after_going_back_to_an_earlier_seed(cached: ComfyClient, mode: str):
    """By models that the host's cache keeps, or makes anew."""

    def pictures(seed: int) -> list[bytes]:
        result = cached.run(edited(seed))
        shown = [name for name in edited(seed) if name.endswith(" picture")]
        return [result.images(name)[0].convert("RGB").tobytes() for name in shown]

    first, second = pictures(1), pictures(2)
    assert all(a != b for a, b in zip(first, second, strict=True))
    assert len(set(first)) == len(first) == 7
    assert pictures(1) == first


@pytest.mark.parametrize("mode", ["ram with room"], indirect=True)
def test_a_sampler_whose_capture_was_dropped_from_the_cache_runs_again(cached: ComfyClient, mode: str):
    """The RAM-pressure cache drops what holds a model first, and keeps the latents that were made with it."""
    before, sampled = cached.run(graph(4)), 0
    for entries, role, word in ((2, "subject", "dog"), (4, "scene", "beach"), (6, "all", "")):
        cached.run({"memory": node("TestScarceMemory", entries=entries, seed=entries)})
        again = cached.run(unchanged(graph(4, role)))
        sampled += "sampler" not in again.cached and "positive" in again.cached
        assert numbers(again) == of_word(word, numbers(before))
        assert numbers(again, "reported") == numbers(before, "reported")
    assert sampled or not TWO_THRESHOLDS  # older hosts drop the oldest results first, whatever they hold


@pytest.mark.parametrize("mode", ["lru"], indirect=True)
def test_a_sampler_whose_run_was_not_found_runs_again_when_it_is_queued_once_more(cached: ComfyClient, mode: str):
    changed = {**graph(5), "twice": node("LatentMultiply", samples=["sampler", 0], multiplier=2.0)}
    changed["maps"]["inputs"]["samples"] = ["twice", 0]
    with pytest.raises(ComfyError, match=r"none of the [0-9]+ runs in the capture made this latent"):
        cached.run(changed)
    right = cached.run(graph(5))
    assert "sampler" not in right.cached
    assert list(numbers(right)) == [f"{word}, step {j}" for j in range(3) for word in ("dog", "beach")]
