"""Subjects that were parsed from another text than the one that is sampled, on the real server."""

import time
from typing import Any

import pytest
import websocket

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.server import ComfyServer
from tests.workflows.sampled import Graph, capture, captured_maps, node, sampled

DOG, CAT = "a dog on the beach", "a photo of a cat in the forest"
LONG = f"{DOG}, {', '.join(f'number {n}' for n in range(40))}"
UNKNOWN = "it is not certain that the subjects"


def capturing(parsed: str, prompt: Graph, **more: Any) -> Graph:
    """One step with a capture of `parsed`; the node called `positive` of `prompt` is sampled."""
    return {
        **sampled(["capture", 0], steps=1),
        "parse": node(
            "ELParseSubjects", clip=["model", 1], text=parsed, parser="rules", override="", words="head noun"
        ),
        "capture": capture(["parse", 0], **more),
        "maps": captured_maps("all"),
        "numbers": node("TestNumbers", saliency=["maps", 0]),
        **prompt,
    }


def text(prompt: Any, clip: str = "model", output: int = 1) -> dict[str, Any]:
    return node("CLIPTextEncode", clip=[clip, output], text=prompt)


def combined(class_type: str, first: str, second: str, **inputs: Any) -> Graph:
    """Two prompts that a node of the host puts together."""
    return {
        "one": text(DOG),
        "two": text(CAT),
        "positive": node(class_type, **{first: ["one", 0], second: ["two", 0]}, **inputs),
    }


WEAKER = {"q": 0.9, "k": 1.0, "v": 0.9, "out": 1.0}  # changes the text encoder's weights, as a LoRA does
SKIPPED = node("CLIPSetLastLayer", clip=["model", 1], stop_at_clip_layer=-2)

RIGHT = {
    "the same text": (DOG, {"positive": text(DOG)}),
    "weights in one of them": (DOG, {"positive": text("a (dog:1.4) on the beach")}),
    "other weights": ("a (dog:0.7) on the beach", {"positive": text("a dog on the (beach:1.2)")}),
    "several chunks": (LONG, {"positive": text(LONG)}),
    "text from another node": (DOG, {"text": node("PrimitiveString", value=DOG), "positive": text(["text", 0])}),
    "changed text encoder": (
        DOG,
        {"weaker": node("CLIPAttentionMultiply", clip=["model", 1], **WEAKER), "positive": text(DOG, "weaker", 0)},
    ),
    "clip skip": (DOG, {"skipped": SKIPPED, "positive": text(DOG, "skipped", 0)}),
    "average": (
        DOG,
        combined("ConditioningAverage", "conditioning_to", "conditioning_from", conditioning_to_strength=0.6),
    ),
    "concat": (DOG, combined("ConditioningConcat", "conditioning_to", "conditioning_from")),
    "several prompts": (DOG, combined("ConditioningCombine", "conditioning_1", "conditioning_2")),
    "timestep range": (
        DOG,
        {
            "one": text(DOG),
            "positive": node("ConditioningSetTimestepRange", conditioning=["one", 0], start=0.0, end=0.9),
        },
    ),
    "area": (
        DOG,
        {
            "one": text(DOG),
            "positive": node(
                "ConditioningSetAreaPercentage",
                conditioning=["one", 0],
                width=0.5,
                height=1.0,
                x=0.0,
                y=0.0,
                strength=1.0,
            ),
        },
    ),
}


@pytest.mark.parametrize("case", RIGHT)
def test_the_prompt_that_is_sampled_raises_no_alarm(server: ComfyServer, client: ComfyClient, case: str):
    parsed, prompt = RIGHT[case]
    before = len(server.log_lines())
    assert client.run(capturing(parsed, prompt)).text("numbers")
    assert not [line for line in server.log_lines()[before:] if UNKNOWN in line]


@pytest.mark.parametrize(
    "prompt",
    [
        {"positive": text(CAT)},
        {"text": node("PrimitiveString", value=CAT), "positive": text(["text", 0])},
        combined("ConditioningCombine", "conditioning_2", "conditioning_1"),
        combined("ConditioningConcat", "conditioning_from", "conditioning_to"),
    ],
    ids=["text", "text from another node", "first of several prompts", "first of joined prompts"],
)
def test_a_capture_of_another_text_is_an_error_with_both_texts(client: ComfyClient, prompt: Graph):
    with pytest.raises(ComfyError, match=f"subjects dog, beach were parsed from '{DOG}', but .* sampled is '{CAT}'"):
        client.run(capturing(DOG, prompt))


def test_the_conditioning_of_the_subjects_prompt_tells_which_of_several_is_meant(client: ComfyClient):
    prompt = combined("ConditioningCombine", "conditioning_2", "conditioning_1")
    assert client.run(capturing(DOG, prompt, positive=["one", 0])).text("numbers")


SHAPING = {
    "role": "all",
    "rule": "mean",
    "value": 0.2,
    "combine": "sum",
    "invert": False,
    "smooth_sigma": 0.0,
    "smooth_size": 3,
    "dilate_size": 3,
    "dilate_iterations": 0,
}
MASKS = {
    "ELMaskFromAttention": {"layers": "all"},
    "ELMaskFromGradient": {"channels": "together", "polarity": "absolute", "solver": "structured", "layer": "last"},
}


@pytest.mark.parametrize("class_type", MASKS)
def test_a_mask_by_another_text_is_an_error_with_both_texts(client: ComfyClient, class_type: str):
    graph = capturing(DOG, {"positive": text(CAT)})
    graph |= {
        "picture": node("EmptyImage", width=64, height=64, batch_size=1, color=0x804020),
        "reference": node("VAEEncode", pixels=["picture", 0], vae=["model", 2]),
        "mask": node(class_type, subjects=["parse", 0], **SHAPING, **MASKS[class_type]),
        "capture": node(
            "ELMaskedLatentModel",
            model=["model", 0],
            reference=["reference", 0],
            masking=["mask", 0],
            manipulate_at="0",
            inside="keep",
            outside="reference",
            inside_timestep=1,
            outside_timestep=1,
        ),
        "maps": node("ELMaskedLatentReport", report=["capture", 1], samples=["sampler", 0]),
        "numbers": node("TestNumbers", saliency=["maps", 1]),
    }
    with pytest.raises(ComfyError, match=f"parsed from '{DOG}', but the prompt that is sampled is '{CAT}'"):
        client.run(graph)


PROBES = {
    "ELProbeAttention": {"layers": "all", "resize": "nearest", "share": "all tokens"},
    "ELGradientSaliency": {
        "polarity": "absolute",
        "definition": "Abs-Grad-SAM",
        "solver": "structured",
        "layer": "last",
    },
}


@pytest.mark.parametrize("class_type", PROBES)
def test_a_probe_with_another_text_is_an_error_with_both_texts(client: ComfyClient, class_type: str):
    graph = capturing(DOG, {"positive": text(CAT)})
    graph["maps"] = node(
        class_type,
        model=["model", 0],
        positive=["positive", 0],
        latent=["latent", 0],
        subjects=["parse", 0],
        noise_level=0.5,
        seed=0,
        **PROBES[class_type],
    )
    with pytest.raises(ComfyError, match=f"parsed from '{DOG}', but the prompt that is sampled is '{CAT}'"):
        client.run(graph)


def test_a_text_that_cannot_be_compared_is_a_warning_on_the_node(server: ComfyServer, client: ComfyClient):
    """Another text, and another encoding than Parse Subjects' CLIP makes."""
    listener = websocket.create_connection(f"{server.url.replace('http', 'ws', 1)}/ws?clientId=listener", timeout=10)
    try:
        before = len(server.log_lines())
        assert client.run(capturing(DOG, {"skipped": SKIPPED, "positive": text(CAT, "skipped", 0)})).text("numbers")
        assert [line for line in server.log_lines()[before:] if UNKNOWN in line and DOG in line]
        shown, end = b"", time.monotonic() + 60
        while UNKNOWN.encode() not in shown and time.monotonic() < end:
            message = listener.recv()
            shown = message if isinstance(message, bytes) else b""
        assert b"sampler" in shown
    finally:
        listener.close()
