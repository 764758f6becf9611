"""Make the pictures of the help pages: `python -m tests.tools.workflows.help_pictures` (`make help-pictures`).

Every picture `js/docs/images/<NodeId>.webp` shows what its node does, all from one real run of the toy checkpoint. The
words in the pictures are few and English, because the pages of all languages show the same pictures.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..comfyui.client import ComfyClient, Result
from ..comfyui.command import run_main
from ..comfyui.paths import ROOT, TOY_TWO, toy_checkpoint
from ..comfyui.server import ComfyServer
from ..contact_sheet import contact_sheet
from ..demo import CASES
from ..toy_world.cases import keep_the_subject
from .layout import WIDGETS, described_inputs
from .pipelines import (
    FORGOTTEN,
    IN_THE_MIDDLE,
    SWAPPED,
    TO_THE_RIGHT,
    TOY_BOXES,
    TOY_DENSE,
    TOY_GROUP,
    TOY_GUIDANCE,
    TOY_MOVED,
    TOY_PHRASES,
    TOY_PLACED,
    TOY_REGIONS,
    TOY_SINGLE,
    TOY_STEP,
    TOY_THRESHOLD,
)
from .two_cars import CARS, THIRD, named_points, upload_cars

IMAGES = ROOT / "js" / "docs" / "images"
QUALITY = 16  # of WebP
CASE = CASES[0]
OTHER_SCENE = keep_the_subject()[4]
STEPS = (5, 18, 28)
PROMPT = "a (small:1.2) white dog and a capybara on the beach"
OWN_PROMPT = f"a {CASE.reference.subject} on the {CASE.reference.scene}"
COLORS = {"subject": "#b0300c", "scene": "#14569c"}
KSAMPLER = {"steps": 35, "cfg": 8.0, "sampler_name": "ddpm", "scheduler": "ddim_uniform", "denoise": 0.7}
Link = list[Any]


@dataclass(frozen=True)
class Node:
    """A node of the graph; `node[slot]` links to its output."""

    id: str

    def __getitem__(self, slot: int) -> Link:
        return [self.id, slot]


class Graph:
    """A graph in API format that grows node by node; what is not given has the node's default."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.nodes: dict[str, dict[str, Any]] = {}
        self._info = info

    def add(self, class_type: str, **inputs: Any) -> Node:
        """Add a node."""
        defaults = {}
        for name, kind, options in described_inputs(self._info[class_type]):
            if kind in WIDGETS:
                choices = options.get("options", [""])
                defaults[name] = options.get("default", choices[0] if kind == "COMBO" else None)
        node = Node(str(len(self.nodes) + 1))
        self.nodes[node.id] = {"class_type": class_type, "inputs": {**defaults, **inputs}}
        return node

    def images(self, link: Link) -> str:
        """Preview an IMAGE; the id under which the result has it."""
        return self.add("PreviewImage", images=link).id

    def masks(self, link: Link) -> str:
        """Preview a MASK; the id under which the result has it."""
        return self.images(self.add("MaskToImage", mask=link)[0])

    def heat(self, saliency: Link, image: Link | None = None) -> str:
        """Preview saliency as heat maps; the id under which the result has them."""
        under = {} if image is None else {"image": image}
        return self.images(self.add("ELSaliencyOverlay", saliency=saliency, **under)[1])


@dataclass(frozen=True)
class Shown:
    """One picture on a page's strip: its heading, the id of the preview and which of its pictures, -1 the last."""

    heading: str
    id: str
    which: int = 0


@dataclass
class Parts:
    """The nodes that several pages need."""

    graph: Graph
    model: Node
    image: Node
    latent: Node
    positive: Node
    negative: Node
    words: Node
    own_positive: Node
    own_words: Node

    @classmethod
    def make(cls, graph: Graph, picture: str) -> Parts:
        """Checkpoint, reference, and two prompts: the case's own, and the one that describes the reference."""
        model = graph.add("CheckpointLoaderSimple", ckpt_name=toy_checkpoint().name)
        image = graph.add("LoadImage", image=picture)
        latent = graph.add("VAEEncode", pixels=image[0], vae=model[2])
        (positive, own_positive), (words, own_words) = (
            [graph.add(kind, clip=model[1], text=text) for text in (CASE.prompt, OWN_PROMPT)]
            for kind in ("CLIPTextEncode", "ELParseSubjects")
        )
        negative = graph.add("CLIPTextEncode", clip=model[1], text="")
        return cls(graph, model, image, latent, positive, negative, words, own_positive, own_words)

    def decoded(self, latent: Link) -> Node:
        """The picture of a latent."""
        return self.graph.add("VAEDecode", samples=latent, vae=self.model[2])

    def sampled(self, model: Link, kind: str = "KSampler", **more: Any) -> Node:
        """Sample the case with the settings of the documents."""
        prompts = {"positive": self.positive[0], "negative": self.negative[0], "latent_image": self.latent[0]}
        return self.graph.add(kind, model=model, **{"seed": CASE.seed, **KSAMPLER, **prompts, **more})


def attention_pages(parts: Parts) -> dict[str, list[Shown]]:
    """Strips of the nodes that look at attention."""
    graph = parts.graph
    capture = graph.add("ELCaptureAttention", model=parts.model[0], subjects=parts.words[0])
    run = parts.sampled(capture[0])
    made = parts.decoded(run[0])
    result = graph.images(made[0])
    each, mean, last = (
        graph.heat(graph.add("ELAttentionSaliency", attention=capture[1], samples=run[0], over_steps=how)[0], made[0])
        for how in ("each", "mean", "last")
    )
    looked = {"model": parts.model[0], "positive": parts.own_positive[0], "latent": parts.latent[0]}
    probe, gradient = (
        graph.add(kind, **looked, subjects=parts.own_words[0], noise_level=level, seed=1)
        for kind, level in (("ELProbeAttention", 0.3), ("ELGradientSaliency", 0.5))
    )
    regions = graph.add("ELSegmentPicture", **looked, subjects=parts.own_words[0], threshold=TOY_THRESHOLD)
    parted = graph.masks(regions[1])
    whole = {"model": parts.model[0], "clip": parts.model[1], "vae": parts.model[2], "latent_image": parts.latent[0]}
    shown = graph.add("ELShowAttention", **whole, text=CASE.prompt, seed=CASE.seed, **KSAMPLER, over_steps="each")
    steps = graph.heat(shown[2], shown[1])
    reference = graph.images(parts.image[0])
    seen, derived = graph.heat(probe[0], parts.image[0]), graph.heat(gradient[0], parts.image[0])
    new, own, scene = CASE.subject, CASE.reference.subject, CASE.scene
    sheet = graph.images(graph.add("ELSaliencyOverlay", saliency=probe[0], image=parts.image[0])[0])
    return {
        # two words at every step: the subject's maps have even numbers
        "ELCaptureAttention": [
            Shown("sampled", result),
            *(Shown(f'"{new}", step {step}', each, 2 * step) for step in STEPS),
        ],
        "ELShowAttention": [
            Shown("picture", graph.images(shown[1])),
            *(Shown(f'"{word}", step {STEPS[1]}', steps, 2 * STEPS[1] + i) for i, word in enumerate((new, scene))),
            Shown(f'"{new}", step {STEPS[2]}', steps, 2 * STEPS[2]),
        ],
        "ELAttentionSaliency": [
            Shown(f'"{new}", mean', mean),
            Shown(f'"{new}", last', last),
            Shown(f'"{scene}", mean', mean, 1),
            Shown(f'"{scene}", last', last, 1),
        ],
        "ELProbeAttention": [Shown("picture", reference), Shown(f'"{own}"', seen), Shown(f'"{scene}"', seen, 1)],
        "ELGradientSaliency": [
            Shown("picture", reference),
            Shown(f'"{own}", attention', seen),
            Shown(f'"{own}", Abs-Grad-SAM', derived),
        ],
        "ELSegmentPicture": [
            Shown("picture", reference),
            Shown("label map", graph.images(regions[0])),
            *(Shown(f"mask {i}", parted, i) for i in range(3)),
        ],
        "ELSaliencyOverlay": [Shown("", sheet)],
        **mask_pages(parts, probe, seen),
    }


def mask_pages(parts: Parts, probe: Node, seen: str) -> dict[str, list[Shown]]:
    """Strips of the nodes between saliency and MASK."""
    graph = parts.graph
    own = CASE.reference.subject
    smooth = [graph.add("ELSmoothSaliency", maps=probe[0], sigma=sigma, size=9) for sigma in (1.0, 3.0)]
    dilated, eroded = (
        graph.add("ELDilateSaliency", maps=probe[0], operation=operation, iterations=1)
        for operation in ("dilate", "erode")
    )
    rules = (("mean", 0.0), ("mean + k·std", 0.5), ("otsu", 0.0))
    masks = [
        graph.masks(graph.add("ELSaliencyToMask", saliency=probe[0], words=own, rule=rule, value=value)[0])
        for rule, value in rules
    ]
    plain = graph.heat(probe[0])
    return {
        "ELSmoothSaliency": [
            Shown(f'"{own}"', plain),
            *(Shown(f"sigma {s}, size 9", graph.heat(n[0])) for s, n in zip((1, 3), smooth, strict=True)),
        ],
        "ELDilateSaliency": [
            Shown(f'"{own}"', plain),
            Shown("dilate 3, once", graph.heat(dilated[0])),
            Shown("erode 3, once", graph.heat(eroded[0])),
        ],
        "ELSaliencyToMask": [
            Shown(f'"{own}"', seen),
            Shown("mean", masks[0]),
            Shown("mean + 0.5 std", masks[1]),
            Shown("otsu", masks[2]),
        ],
    }


def sampling_pages(parts: Parts) -> tuple[dict[str, list[Shown]], str]:
    """Strips of the nodes that sample, and the id of Compare Images, whose numbers are shown."""
    graph = parts.graph
    reference = graph.images(parts.image[0])
    by_attention = graph.add("ELMaskFromAttention", subjects=parts.words[0])
    by_gradient = graph.add("ELMaskFromGradient", subjects=parts.words[0])
    attention, gradient = (
        parts.sampled(parts.model[0], "ELMaskedLatentKSampler", masking=masking[0])
        for masking in (by_attention, by_gradient)
    )
    baseline = parts.decoded(parts.sampled(parts.model[0])[0])
    made = parts.decoded(attention[0])
    plain, result = graph.images(baseline[0]), graph.images(made[0])
    given = graph.add("ImageToMask", image=graph.add("LoadImage", image="help-mask.png")[0], channel="red")
    fixed = parts.sampled(
        parts.model[0], "ELMaskedLatentKSampler", masking=graph.add("ELMaskFromImage", mask=given[0])[0]
    )
    patch = graph.add("ELMaskedLatentModel", model=parts.model[0], reference=parts.latent[0], masking=by_attention[0])
    unpatched, patched = (parts.sampled(model, sampler_name="euler") for model in (parts.model[0], patch[0]))
    report = graph.add("ELMaskedLatentReport", report=patch[1], samples=patched[0])
    compared = graph.add("ELCompareImages", image=made[0], reference=parts.image[0])
    found = graph.masks(attention[1])
    return {
        "ELMaskedLatentKSampler": [
            Shown("reference", reference),
            Shown("KSampler", plain),
            Shown("Masked Latent", result),
            Shown(f"mask, step {STEPS[-1]}", found, -1),
        ],
        "ELMaskFromAttention": [
            Shown("result", result),
            *(Shown(f"mask, step {step}", found, i) for i, step in enumerate(STEPS)),
        ],
        "ELMaskFromGradient": [
            Shown("result", graph.images(parts.decoded(gradient[0])[0])),
            *(Shown(f"mask, step {step}", graph.masks(gradient[1]), i) for i, step in enumerate(STEPS)),
        ],
        "ELMaskFromImage": [
            Shown("reference", reference),
            Shown("mask", graph.masks(given[0])),
            Shown("result", graph.images(parts.decoded(fixed[0])[0])),
        ],
        "ELMaskedLatentModel": [
            Shown("reference", reference),
            Shown("euler", graph.images(parts.decoded(unpatched[0])[0])),
            Shown("euler, patched", graph.images(parts.decoded(patched[0])[0])),
        ],
        "ELMaskedLatentReport": [
            *(Shown(f"mask, step {step}", graph.masks(report[0]), i) for i, step in enumerate(STEPS)),
        ],
        "ELCompareImages": [Shown("reference", reference), Shown("image", result)],
    }, compared.id


def pausing_pages(parts: Parts) -> dict[str, list[Shown]]:
    """Strips of the nodes that wait for their user, whose answers are recorded ones here."""
    graph, first = parts.graph, STEPS[0]
    found = graph.add("ELMaskFromAttention", subjects=parts.words[0])
    painted = graph.add("ELPaintMask", masking=found[0], answers=recorded({"step": first, "masks": [painted_mask()]}))
    sampled, by_hand = (
        parts.sampled(parts.model[0], "ELMaskedLatentKSampler", masking=masking[0], manipulate_at=str(first))
        for masking in (found, painted)
    )
    answers = {"end here": {"action": "end here"}, "cfg 2": {"values": {"cfg": 2.0}}}
    pausing = {
        name: graph.add("ELPauseSampling", model=parts.model[0], pause_at="12", answers=recorded({"step": 12, **each}))
        for name, each in answers.items()
    }
    plain, ended, changed = (
        graph.images(parts.decoded(parts.sampled(model, denoise=1.0)[0])[0])
        for model in (parts.model[0], *(each[0] for each in pausing.values()))
    )
    return {
        "ELPaintMask": [
            Shown(f"found, step {first}", graph.masks(sampled[1])),
            Shown("result", graph.images(parts.decoded(sampled[0])[0])),
            Shown(f"painted, step {first}", graph.masks(by_hand[1])),
            Shown("result", graph.images(parts.decoded(by_hand[0])[0])),
        ],
        "ELPauseSampling": [
            Shown("cfg 8", plain),
            Shown("ended before step 12", ended),
            Shown("cfg 2 from step 12", changed),
        ],
    }


def recorded(answer: dict[str, Any]) -> str:
    """An answer as a report has it."""
    return f"answers: {json.dumps([answer])}"


def painted_mask() -> str:
    """A disc in the middle of the latent, as text."""
    page = Image.new("L", (16, 16))
    ImageDraw.Draw(page).ellipse((2, 3, 13, 14), fill=255)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def editing_pages(parts: Parts) -> dict[str, list[Shown]]:
    """Strips of the nodes that edit by attention: one word exchanged, with and without keeping the rest."""
    graph, (model, clip) = parts.graph, (parts.model[0], parts.model[1])
    start = graph.add("EmptyLatentImage", width=128, height=128)[0]
    how = {"latent_image": start, "denoise": 1.0, "cfg": TOY_GUIDANCE, "sampler_name": "euler", "scheduler": "normal"}
    texts = {"source_text": OWN_PROMPT, "target_text": CASE.prompt}
    editor = graph.add("ELPromptToPrompt", clip=clip, **texts, self_coarser=2)
    masks = {"rule": "otsu", "refine": 1, "dilate_iterations": 1, "over_steps": "cumulative"}
    maskings = {
        name: graph.add("ELMaskFromAttention", subjects=words[0], **masks)[0]
        for name, words in (("masking", parts.words), ("source_masking", parts.own_words))
    }
    twin = {"model": model, "source": parts.own_positive[0], "editors": editor[0]}
    models = [graph.add("ELTwinSamplingModel", **twin, **blended)[0] for blended in ({}, maskings)]
    source, plain, edited, blended = (
        graph.images(parts.decoded(parts.sampled(each, positive=positive[0], **how)[0])[0])
        for each, positive in (
            (model, parts.own_positive),
            (model, parts.positive),
            *((each, parts.positive) for each in models),
        )
    )
    moved, stays = (
        graph.add("CLIPTextEncode", clip=clip, text=f"{OTHER_SCENE.reference.subject} on {scene}")
        for scene in (OTHER_SCENE.scene, OTHER_SCENE.reference.scene)
    )
    texture, layout = (
        graph.add("ELTwinSamplingModel", model=model, source=old[0], editors=graph.add(kind)[0])
        for kind, old in (("ELMutualSelfAttention", parts.own_positive), ("ELPlugAndPlay", stays))
    )
    same_texture, old_scene, new_scene, same_layout = (
        graph.images(parts.decoded(parts.sampled(each, positive=positive[0], **how)[0])[0])
        for each, positive in (
            (texture[0], parts.positive),
            (model, stays),
            (model, moved),
            (layout[0], moved),
        )
    )
    parts_of_it = graph.add(
        "ConditioningCombine",
        **{f"conditioning_{i}": graph.add("CLIPTextEncode", clip=clip, text=TOY_REGIONS[i])[0] for i in (1, 2)},
    )
    halves = {"model": model, "regions": parts_of_it[0], "ratios": "1,1", "base_share": 0.2}
    at_the_word = {"model": model, "regions": parts.positive[0], "masking": maskings["source_masking"]}
    in_halves, by_the_word = (
        graph.images(parts.decoded(parts.sampled(patched[0], positive=positive, **how)[0])[0])
        for patched, positive in (
            (
                graph.add("ELRegionalAttentionModel", **halves),
                graph.add("CLIPTextEncode", clip=clip, text=TOY_REGIONS[0])[0],
            ),
            (graph.add("ELRegionalAttentionModel", **at_the_word), parts.own_positive[0]),
        )
    )
    return {
        "ELRegionalAttentionModel": [
            Shown("left | right half", in_halves),
            Shown(CASE.reference.subject, source),
            Shown(f"{CASE.subject} where it is", by_the_word),
        ],
        "ELMutualSelfAttention": [
            Shown(CASE.reference.subject, source),
            Shown(CASE.subject, plain),
            Shown("MasaCtrl", same_texture),
        ],
        "ELPlugAndPlay": [
            Shown(OTHER_SCENE.reference.scene, old_scene),
            Shown(OTHER_SCENE.scene, new_scene),
            Shown("Plug-and-Play", same_layout),
        ],
        "ELPromptToPrompt": [
            Shown(CASE.reference.subject, source),
            Shown(CASE.subject, plain),
            Shown("Prompt-to-Prompt", edited),
        ],
        "ELTwinSamplingModel": [
            Shown("source", source),
            Shown("Prompt-to-Prompt", edited),
            Shown("with masks", blended),
        ],
    }


def appearance_pages(parts: Parts, cars: list[str]) -> dict[str, list[Shown]]:
    """The strips of the nodes that take over the look of another picture: the workflows' own settings."""
    graph, (model, clip, vae) = parts.graph, (parts.model[slot] for slot in range(3))
    structure, look = (graph.add("LoadImage", image=name) for name in cars)
    prompt = graph.add("CLIPTextEncode", clip=clip, text="a photo of a car")[0]
    start, reference = (graph.add("VAEEncode", pixels=each[0], vae=vae)[0] for each in (structure, look))
    twin = {"model": model, "source": prompt, "source_path": "noised reference", "reference": start}
    how = {"steps": 68, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.68}
    pages = {}
    for node_id in ("ELCrossImageAttention", "ELEyeForAnEye"):
        editor = graph.add(node_id, prompt=prompt, reference=reference)[0]
        patched = graph.add("ELTwinSamplingModel", **twin, editors=editor)[0]
        sampled = parts.sampled(patched, positive=prompt, latent_image=start, **how)
        pages[node_id] = [
            Shown("structure", graph.images(structure[0])),
            Shown("appearance", graph.images(look[0])),
            Shown("result", graph.images(parts.decoded(sampled[0])[0])),
        ]
    return pages


def phrases_page(parts: Parts) -> dict[str, list[Shown]]:
    """The strip of Structured Diffusion: the checkpoint that draws two things, without phrases and with them."""
    graph = parts.graph
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=TOY_TWO.name)
    model, clip, vae = (loaded[slot] for slot in range(3))
    text, phrases = TOY_PHRASES
    prompt = graph.add("ELPromptWords", clip=clip, text=text)
    patched = graph.add("ELStructuredDiffusionModel", model=model, clip=clip, subjects=prompt[1], phrases=phrases)
    empty = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)[0]
    how = {"positive": prompt[0], "latent_image": empty, "denoise": 1.0, "cfg": TOY_GUIDANCE, "sampler_name": "euler"}
    plain, told = (
        graph.images(graph.add("VAEDecode", samples=parts.sampled(each, **how)[0], vae=vae)[0])
        for each in (model, patched[0])
    )
    return {"ELStructuredDiffusionModel": [Shown("the prompt alone", plain), Shown("and its phrases", told)]}


def places_page(parts: Parts) -> dict[str, list[Shown]]:
    """The strip of Place Phrases: the boxes, and the second world without the node and with it."""
    graph = parts.graph
    loaded = graph.add("CheckpointLoaderSimple", ckpt_name=TOY_TWO.name)
    model, clip, vae = (loaded[slot] for slot in range(3))
    words = graph.add("ELPromptWords", clip=clip, text=TOY_GROUP)
    layout = graph.add("ELLayoutFromText", text=TOY_BOXES, width=128, height=128)
    inputs = {"clip": clip, "subjects": words[1], "layout": layout[0]}
    placed = graph.add("ELDenseDiffusionModel", model=model, **inputs, **TOY_DENSE)
    empty = graph.add("EmptyLatentImage", width=128, height=128, batch_size=1)[0]
    how = {"positive": words[0], "latent_image": empty, "denoise": 1.0, "cfg": TOY_GUIDANCE, "sampler_name": "euler"}
    how |= {"scheduler": "normal", "steps": 50, "seed": SWAPPED}
    how |= {"negative": graph.add("CLIPTextEncode", clip=clip, text="")[0]}
    runs = [parts.sampled(each, **how)[0] for each in (model, placed[0])]
    pictures = layout[2], *(graph.add("VAEDecode", samples=each, vae=vae)[0] for each in runs)
    headings = "boxes", "without", "Place Phrases"
    return {
        "ELDenseDiffusionModel": [
            Shown(heading, graph.images(each)) for heading, each in zip(headings, pictures, strict=True)
        ]
    }


def inversion_pages(parts: Parts) -> dict[str, list[Shown]]:
    """Strips of the nodes that edit a given picture: what comes back of it, and where two prompts differ."""
    graph = parts.graph
    picture = graph.images(parts.image[0])
    prompts = {"positive": parts.own_positive[0], "negative": parts.negative[0]}
    given = {"model": parts.model[0], **prompts, "latent": parts.latent[0]}
    back = [
        graph.images(parts.decoded(graph.add("ELInvertPicture", **given, steps=10, iterations=each)[2])[0])
        for each in (0, 5)
    ]
    noise = graph.add("ELEditFriendlyInversion", **given, seed=1, steps=50, cfg=TOY_GUIDANCE, skip=0.3)
    fixed = {"add_noise": False, "noise_seed": 0, "cfg": TOY_GUIDANCE, "negative": parts.negative[0]}
    fixed |= {"model": parts.model[0], "sampler": noise[0], "sigmas": noise[1], "latent_image": noise[3]}
    same, other = (
        graph.images(parts.decoded(graph.add("SamplerCustom", **fixed, positive=prompt[0])[0])[0])
        for prompt in (parts.own_positive, parts.positive)
    )
    asked = {"source": parts.own_positive[0], "target": parts.positive[0], "latent": parts.latent[0]}
    differs = graph.add("ELPromptDifference", model=parts.model[0], **asked, seed=1)
    mask = graph.add("ELSaliencyToMask", saliency=differs[0], rule="mean × factor", value=1.5)
    return {
        "ELInvertPicture": [
            Shown("picture", picture),
            Shown("back, 0 iterations", back[0]),
            Shown("back, 5 iterations", back[1]),
        ],
        "ELEditFriendlyInversion": [Shown("picture", picture), Shown("back", same), Shown(CASE.subject, other)],
        "ELPromptDifference": [
            Shown("picture", picture),
            Shown("difference", graph.heat(differs[0], parts.image[0])),
            Shown("mask", graph.masks(mask[0])),
        ],
    }


def correspondence_pages(parts: Parts, cars: list[str]) -> dict[str, list[Shown]]:
    """Strips of the nodes that look for a thing of one picture in another."""
    graph = parts.graph
    a, b = (graph.add("LoadImage", image=name) for name in cars)
    pair = {"model": parts.model[0], "vae": parts.model[2], "positive": parts.negative[0]}
    pair |= {"picture_a": a[0], "picture_b": b[0]}
    found = graph.add("ELFindPoints", **pair, points=json.dumps(named_points(CARS[0])))
    carried = graph.add("ELCarryMask", **pair, mask=a[1])
    return {
        "ELFindPoints": [Shown("", graph.images(found[2]))],
        "ELCarryMask": [
            Shown("picture A", graph.images(a[0])),
            Shown("mask of A", graph.masks(a[1])),
            Shown("picture B", graph.images(b[0])),
            Shown("found in B", graph.masks(carried[0])),
        ],
    }


def layout_pages(parts: Parts) -> dict[str, list[Shown]]:
    """The strip of the node with boxes."""
    graph = parts.graph
    boxes = graph.add("ELLayoutFromText", text="dog: left half; ball: 0.6, 0.7, 0.2, 0.2", width=256, height=256)
    masks = graph.masks(boxes[1])
    return {
        "ELLayoutFromText": [
            Shown("preview", graph.images(boxes[2])),
            *(Shown(f'mask of "{words}"', masks, i) for i, words in enumerate(("dog", "ball"))),
        ]
    }


def teaching_pages(parts: Parts, cars: list[str], third: str) -> dict[str, list[Shown]]:
    """Strips of the nodes that learn from masked pictures."""
    graph = parts.graph
    own = {"model": parts.model[0], "vae": parts.model[2]}
    a, b, other = (graph.add("LoadImage", image=name) for name in (*cars, third))
    pictures = graph.add("ImageBatch", image1=a[0], image2=b[0])
    masks = graph.add(
        "ImageBatch", **{f"image{i}": graph.add("MaskToImage", mask=each[1])[0] for i, each in enumerate((a, b), 1)}
    )
    marked = graph.add("ImageToMask", image=masks[0], channel="red")
    taught = graph.add(
        "ELTeachRegions", **own, positive=parts.negative[0], pictures=pictures[0], mask=marked[0], names="car"
    )
    found = graph.add("ELFindRegions", **own, pictures=other[0], classifier=taught[0])
    searched, result = Shown("searched", graph.images(other[0])), Shown("found", graph.masks(found[0]))
    both, of_both = graph.images(pictures[0]), graph.images(masks[0])
    return {
        "ELTeachRegions": [
            *(Shown(heading, id, i) for i in (0, 1) for heading, id in (("picture", both), ("mask", of_both))),
            searched,
            result,
        ],
        "ELFindRegions": [searched, result, Shown("uncertainty", graph.masks(found[1]))],
    }


def strip(shown: list[Shown], result: Result, caption: str) -> Image.Image:
    """The pictures of a page in a row; a single one as it is."""
    pictures = [result.images(each.id)[each.which] for each in shown]
    if len(shown) == 1:
        return pictures[0].convert("RGB")
    return contact_sheet([each.heading for each in shown], [(caption, pictures)])


def table(prompt: str, lines: list[str]) -> Image.Image:
    """The prompt and the table that Parse Subjects shows on the node, its words in the colours of their roles."""
    font = ImageFont.load_default(18)
    rows = [line.split(" | ") for line in lines]
    page = Image.new("RGB", (520, 60 + 28 * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((16, 14), prompt, "black", font)
    for i, row in enumerate(rows):
        for x, cell in zip((16, 200, 330), row, strict=False):
            draw.text((x, 52 + 28 * i), cell, COLORS.get(row[1], "#444") if len(row) > 1 else "#444", font)
    return page


def guidance_pages(parts: Parts) -> dict[str, list[Shown]]:
    """Strips of the nodes that guide: the second world, with several subjects."""
    graph = parts.graph
    model = graph.add("CheckpointLoaderSimple", ckpt_name=TOY_TWO.name)
    words = graph.add("ELPromptWords", clip=model[1], text=TOY_GROUP)
    negative = graph.add("CLIPTextEncode", clip=model[1], text="")
    empty = graph.add("EmptyLatentImage", width=128, height=128)
    how = {"positive": words[0], "negative": negative[0], "latent_image": empty[0], "denoise": 1.0}
    how |= {"sampler_name": "euler", "scheduler": "normal", "steps": 30, "cfg": TOY_GUIDANCE}
    kept = graph.add("ELKeepWords", model=model[0], subjects=words[1], step_size=TOY_STEP)
    plain, guided = (parts.sampled(each, seed=FORGOTTEN, **how) for each in (model[0], kept[0]))
    pictures = [graph.add("VAEDecode", samples=each[0], vae=model[2]) for each in (plain, guided)]
    report = graph.add("ELMaskedLatentReport", report=kept[1], samples=guided[0])
    maps = graph.heat(report[1], pictures[1][0])
    shown = zip(("without", "Keep Words"), pictures, strict=True)
    last = (("cat, last guided step", -2), ("dog, last guided step", -1))
    layout = graph.add("ELLayoutFromText", text="cat: left half; dog: right half", width=128, height=128)
    placed = graph.add("ELPlaceWords", model=model[0], subjects=words[1], layout=layout[0], **TOY_PLACED)
    runs = [parts.sampled(each, seed=TO_THE_RIGHT, **how)[0] for each in (model[0], placed[0])]
    places = (layout[2], *(graph.add("VAEDecode", samples=each, vae=model[2])[0] for each in runs))
    drawn = graph.add("ELGuidanceReport", report=placed[1], samples=runs[1], image=places[2])
    return {
        "ELKeepWords": [
            *(Shown(heading, graph.images(each[0])) for heading, each in shown),
            *(Shown(heading, maps, which) for heading, which in last),
        ],
        "ELGuidanceReport": [Shown("", drawn.id)],
        "ELPlaceWords": [
            Shown(heading, graph.images(each))
            for heading, each in zip(("boxes", "without", "Place Words"), places, strict=True)
        ],
    }


def moving_page(parts: Parts) -> dict[str, list[Shown]]:
    """Strip of Guide Shape: the plain picture, and its thing moved to both sides and made larger."""
    graph = parts.graph
    model = graph.add("CheckpointLoaderSimple", ckpt_name=TOY_TWO.name)
    words = graph.add("ELPromptWords", clip=model[1], text=TOY_SINGLE)
    negative = graph.add("CLIPTextEncode", clip=model[1], text="")
    empty = graph.add("EmptyLatentImage", width=128, height=128)
    how = {"positive": words[0], "negative": negative[0], "latent_image": empty[0], "denoise": 1.0}
    how |= {"sampler_name": "euler", "scheduler": "normal", "steps": 20, "cfg": TOY_GUIDANCE, "seed": IN_THE_MIDDLE}
    asked = {"x -0.3": {"x": -0.3}, "x 0.3": {"x": 0.3}, "amount 2": {"amount": 2.0}}
    guided = (
        graph.add("ELGuideShape", model=model[0], subjects=words[1], words="cat", **TOY_MOVED, **each)[0]
        for each in asked.values()
    )
    runs = [parts.sampled(each, **how)[0] for each in (model[0], *guided)]
    pictures = [graph.images(graph.add("VAEDecode", samples=each, vae=model[2])[0]) for each in runs]
    shown = zip(("without", *asked), pictures, strict=True)
    return {"ELGuideShape": [Shown(heading, each) for heading, each in shown]}


def classifier_pages(parts: Parts) -> dict[str, list[Shown]]:
    """The strip of the node that guides by a picture's score: the first world, seen by a random image encoder."""
    graph = parts.graph
    eyes = graph.add("CLIPVisionLoader", clip_name="clip-vit-large-patch14.safetensors")
    clip = graph.add("CLIPLoader", clip_name="clip_l.safetensors", type="stable_diffusion", device="default")
    text = graph.add("CLIPTextEncode", clip=clip[0], text=CASE.prompt)
    seen = {"vae": parts.model[2], "clip_vision": eyes[0], "text": text[0]}
    guided = graph.add("ELClassifierGuidance", model=parts.model[0], **seen)
    empty = graph.add("EmptyLatentImage", width=128, height=128)
    how = {"latent_image": empty[0], "denoise": 1.0, "steps": 20}
    plain, better = (parts.sampled(each, **how) for each in (parts.model[0], guided[0]))
    drawn = graph.add("ELGuidanceReport", report=guided[1], samples=better[0])
    pictures = [graph.images(parts.decoded(each[0])[0]) for each in (plain, better)]
    shown = zip(("without", "Classifier Guidance", "loss"), (*pictures, drawn.id), strict=True)
    return {"ELClassifierGuidance": [Shown(*each) for each in shown]}


def main() -> None:
    """Write `js/docs/images/<NodeId>.webp` for every node."""
    small = Path(__file__).with_name("small_models.py")
    with ComfyServer(custom_nodes=[small]) as server, ComfyClient(server) as client:
        client.run({"1": {"class_type": "TestSmallModels", "inputs": {}}})
        drawn = CASE.picture()
        picture = client.upload_image(Image.fromarray(drawn.image), "help-picture.png")
        client.upload_image(Image.fromarray(drawn.mask).convert("RGB"), "help-mask.png")
        parts = Parts.make(Graph(client.object_info()), picture)
        parsed = parts.graph.add("ELParseSubjects", clip=parts.model[1], text=PROMPT)
        pages, compared = sampling_pages(parts)
        cars, third = upload_cars(client), client.upload_image(Image.fromarray(THIRD.image), "car-c.png")
        pages = {**attention_pages(parts), **correspondence_pages(parts, cars), **pages}
        pages |= teaching_pages(parts, cars, third) | editing_pages(parts) | inversion_pages(parts)
        pages |= appearance_pages(parts, cars) | guidance_pages(parts) | layout_pages(parts)
        pages |= moving_page(parts) | phrases_page(parts) | places_page(parts) | pausing_pages(parts)
        pages |= classifier_pages(parts)
        result = client.run(parts.graph.nodes)
    IMAGES.mkdir(parents=True, exist_ok=True)
    own = {"ELProbeAttention", "ELGradientSaliency", "ELSegmentPicture", "ELInvertPicture"}
    own |= {"ELSmoothSaliency", "ELDilateSaliency", "ELSaliencyToMask"}
    captions = {node_id: OWN_PROMPT if node_id in own else CASE.prompt for node_id in pages}
    captions["ELPlugAndPlay"] = OTHER_SCENE.prompt
    captions["ELRegionalAttentionModel"] = f"left: {TOY_REGIONS[1]}, right: {TOY_REGIONS[2]}"
    captions["ELKeepWords"] = captions["ELPlaceWords"] = captions["ELDenseDiffusionModel"] = TOY_GROUP
    captions["ELGuideShape"] = TOY_SINGLE
    captions["ELStructuredDiffusionModel"] = TOY_PHRASES[0]
    captions["ELCrossImageAttention"] = captions["ELEyeForAnEye"] = "a photo of a car"
    captions["ELLayoutFromText"] = "dog: left half; ball: 0.6, 0.7, 0.2, 0.2"
    captions |= {"ELCarryMask": "nothing was taught or sampled", "ELTeachRegions": "", "ELFindRegions": ""}
    captions["ELCompareImages"] = result.text(compared)
    made = {node_id: strip(shown, result, captions[node_id]) for node_id, shown in pages.items()}
    made["ELParseSubjects"] = table(PROMPT, result.text(parsed.id).splitlines())
    for node_id, page in made.items():
        page.save(IMAGES / f"{node_id}.webp", quality=QUALITY, method=6)


if __name__ == "__main__":
    run_main(main)
