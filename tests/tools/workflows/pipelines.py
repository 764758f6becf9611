"""Run the shipped pipelines on toy cases through ComfyUI's API and measure what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ..comfyui.client import ComfyClient, Result
from ..comfyui.paths import TOY_TWO, toy_checkpoint
from ..comfyui.server import ComfyServer
from ..toy_world.cases import Case
from ..toy_world.judge import Judge, judge_images
from ..toy_world.pictures import Picture
from .graphs import Workflow

SUBJECT_MARGIN = 3  # pixels around a subject that count as the subject: outlines are blurred over about as many
STEPS_OF_DOCUMENTS = 50
# Of Segment Picture: the toy's 256 places differ less from each other than the 4096 of SD 1.5 do.
TOY_THRESHOLD = 0.2
# Of the workflow that edits.
TOY_GUIDANCE = 3.0
# Of the workflow of regions: the base prompt, those of both halves, and that of where its subject is.
TOY_REGIONS = "dog on beach", "dog on forest", "dog on desert", "cat on beach"
# A prompt of the second world, and its phrases.
TOY_PHRASES = "a red dog and a blue cat on the beach", "red dog, blue cat"
# Of the workflow that keeps words: a prompt of the second world, and a step that moves the toy's latents a little.
TOY_GROUP, TOY_STEP = "a cat and a dog on the beach", 10.0
# Seeds for pictures: with the first one the cat is missing without guidance, with the second one it is on the right,
# with the third one, alone, in the middle, with the last one both are on the other sides than asked for.
FORGOTTEN, TO_THE_RIGHT, IN_THE_MIDDLE, SWAPPED = 1, 3, 2, 4
# Of Place Words: the toy's layout is decided over more of the run, and its attention is soon in the boxes.
TOY_PLACED = {"steps": "0-50%", "until": 0.1, "stop_for_good": False}
# Of Place Phrases: the toy's text encoder makes other vectors of a phrase alone.
TOY_BOXES, TOY_DENSE = "cat: 0, 0.375, 0.5, 0.625; dog: 0.5, 0.375, 0.5, 0.625", {"phrases_alone": False}
# Of Guide Shape: a prompt of the second world, and moves that are large enough for its latents.
TOY_SINGLE = "a cat on the beach"
TOY_MOVED = {"steps": "0-60%", "step_size": 0.1, "repeats": "5"}
Job = tuple[Any, ...]


def sampler_settings(strength: float) -> dict[str, float | int]:
    """The sampler inputs for a strength of the documents: 50 steps of which the last 50·strength are run."""
    return {"steps": int(STEPS_OF_DOCUMENTS * strength + 1e-9), "denoise": strength}


def fill_case(workflow: Workflow, case: Case, image: str, **sampler: float | str) -> Workflow:
    """Put a case into a shipped workflow that samples: toy checkpoint, uploaded reference `image`, prompt, seed.

    sampler: further inputs of the sampler.
    """
    filled = fill_picture(workflow, case.prompt, "Reference picture", image)
    return filled.fill("Sampler", seed=case.seed, **sampler)


def fill_picture(workflow: Workflow, prompt: str, loader: str, image: str) -> Workflow:
    """Put the toy checkpoint, a prompt and an uploaded `image` (at the node `loader`) into a shipped workflow."""
    words = workflow.graph[workflow.node("Prompt")]["class_type"] == "ELPromptWords"
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name)
    filled = filled.fill("Prompt", **{"text" if words else "value": prompt})
    for node in filled.graph.values():
        if node["class_type"] == "ELSegmentPicture":
            node["inputs"]["threshold"] = TOY_THRESHOLD
    return filled.fill(loader, image=image)


def fill_edit(workflow: Workflow, before: str, after: str, scene: str, **sampler: float) -> Workflow:
    """Put the toy checkpoint and two prompts, with two subjects in one scene, into the workflow that edits.

    sampler: inputs of both samplers. In the toy's latents of 16x16 its coarse layers have 8x8.
    """
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Empty latent", width=128, height=128)
    filled = filled.fill("Source prompt", value=f"{before} on {scene}").fill(
        "Target prompt", value=f"{after} on {scene}"
    )
    for title in ("Sampler", "Sampler of the source"):
        filled = filled.fill(title, cfg=TOY_GUIDANCE, **sampler)
    return filled.fill("What is taken over", self_coarser=2)


def fill_transformer(workflow: Workflow, side: int, steps: int) -> Workflow:
    """Make the pictures of a workflow for transformers so large, in so many steps, that `small_models` is quick."""
    filled = workflow.fill("Empty latent", width=side, height=side)
    if "width" in filled.graph[filled.node("Shift")]["inputs"]:
        filled = filled.fill("Shift", width=side, height=side)
    return filled.fill("Sampler", steps=steps).fill("Sample again", steps=steps)


def fill_inversion(
    workflow: Workflow,
    image: str,
    before: str,
    after: str,
    steps: int = STEPS_OF_DOCUMENTS,
    guidance: float = TOY_GUIDANCE,
) -> Workflow:
    """Put the toy checkpoint, an uploaded `image` and two prompts into a workflow that inverts a picture.

    steps: of the inversion and of every sampler.
    """
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Picture to edit", image=image)
    for title, text in (("Source prompt", before), ("Target prompt", after)):
        encodes = filled.graph[filled.node(title)]["class_type"] == "CLIPTextEncode"
        filled = filled.fill(title, **{"text" if encodes else "value": text})
    for node in filled.graph.values():
        kind, inputs = node["class_type"], node["inputs"]
        if "steps" in inputs:
            inputs["steps"] = steps
        if kind in ("KSampler", "SamplerCustom"):
            inputs["cfg"] = guidance
        if kind == "ELPromptToPrompt":  # in the toy's latents of 16x16 its coarse layers have 8x8
            inputs["self_coarser"] = 2
        if kind == "ELMaskedLatentModel":
            inputs["manipulate_at"] = f"1-{steps}"
    return filled


def fill_masactrl(workflow: Workflow, case: Case, **sampler: float) -> Workflow:
    """Put the toy checkpoint and the case's old and new prompt into the workflow of MasaCtrl.

    sampler: inputs of both samplers.
    """
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Empty latent", width=128, height=128)
    filled = filled.fill("Source", text=f"{case.reference.subject} on {case.reference.scene}")
    filled = filled.fill("Target", text=case.prompt)
    for title in ("Sampler", "Sampler of the source"):
        filled = filled.fill(title, cfg=TOY_GUIDANCE, **sampler)
    return filled


def fill_layout(workflow: Workflow, case: Case, image: str, **sampler: float) -> Workflow:
    """Put the toy checkpoint, the case's picture and its prompt into the workflow of Plug-and-Play."""
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Picture with the layout", image=image)
    filled = filled.fill("What the picture shows", text=f"{case.reference.subject} on {case.reference.scene}")
    return filled.fill("Prompt", text=case.prompt).fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def fill_regions(workflow: Workflow, base: str, left: str, right: str, at_the_word: str, **sampler: float) -> Workflow:
    """Put the toy checkpoint and these prompts into the workflow of regions. sampler: inputs of all samplers."""
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Empty latent", width=128, height=128)
    texts = {"Prompt": base, "Left half": left, "Right half": right, "Prompt of that place": at_the_word}
    for title, text in texts.items():
        filled = filled.fill(title, text=text)
    for title in ("Sampler", "Sampler by a word", "Sampler without regions"):
        filled = filled.fill(title, cfg=TOY_GUIDANCE, **sampler)
    return filled


def fill_box(workflow: Workflow, base: str, inside: str, **sampler: float) -> Workflow:
    """Put the toy checkpoint and these prompts into the workflow of a drawn box. sampler: inputs of the sampler."""
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Empty latent", width=128, height=128)
    filled = filled.fill("Where it is", width=128, height=128)
    filled = filled.fill("Prompt", text=base).fill("What is in the box", text=inside)
    return filled.fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def _on_second_world(workflow: Workflow) -> Workflow:
    """Put the second world's checkpoint and the size of its pictures into a workflow."""
    return workflow.fill("Checkpoint", ckpt_name=TOY_TWO.name).fill("Empty latent", width=128, height=128)


def fill_phrases(workflow: Workflow, text: str, phrases: str, **sampler: float) -> Workflow:
    """Put the second world's checkpoint, a prompt and its phrases into the workflow of Structured Diffusion.

    sampler: inputs of both samplers.
    """
    filled = _on_second_world(workflow)
    filled = filled.fill("Prompt", text=text).fill("Phrases alone", phrases=phrases)
    for title in ("Sampler", "Sampler without phrases"):
        filled = filled.fill(title, cfg=TOY_GUIDANCE, **sampler)
    return filled


def fill_look(workflow: Workflow, prompt: str, structure: str, appearance: str, **sampler: float) -> Workflow:
    """Put the toy checkpoint, two pictures and the prompt of both into a workflow of appearance."""
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("What the pictures show", text=prompt)
    filled = filled.fill("Picture with the structure", image=structure)
    return filled.fill("Picture with the appearance", image=appearance).fill("Sampler", **sampler)


def fill_keep_words(workflow: Workflow, prompt: str = TOY_GROUP, **sampler: float) -> Workflow:
    """Put the second world's checkpoint and a prompt with several subjects into the workflow that keeps words.

    sampler: inputs of the sampler. The step is taken for the toy's latent, whose attention is less peaked.
    """
    filled = _on_second_world(workflow)
    filled = filled.fill("Prompt", text=prompt).fill("Keep both", step_size=TOY_STEP)
    return filled.fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def fill_place_words(workflow: Workflow, prompt: str = TOY_GROUP, **sampler: float) -> Workflow:
    """Put the second world's checkpoint and a prompt into the workflow that places words. sampler: inputs of it."""
    filled = _on_second_world(workflow)
    filled = filled.fill("Where things are", width=128, height=128).fill("Prompt", text=prompt)
    filled = filled.fill("Each in its place", **TOY_PLACED)
    return filled.fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def fill_place_phrases(workflow: Workflow, prompt: str = TOY_GROUP, **sampler: float) -> Workflow:
    """Put the second world's checkpoint and a prompt into the workflow that places phrases.

    sampler: inputs of both samplers.
    """
    filled = _on_second_world(workflow)
    filled = filled.fill("Where things are", text=TOY_BOXES, width=128, height=128).fill("Prompt", text=prompt)
    filled = filled.fill("Phrases in their places", **TOY_DENSE)
    for title in ("Sampler", "Sampler without places"):
        filled = filled.fill(title, cfg=TOY_GUIDANCE, **sampler)
    return filled


def fill_guide_shape(workflow: Workflow, prompt: str = TOY_SINGLE, **sampler: float) -> Workflow:
    """Put the second world's checkpoint and a prompt into the workflow that moves a word. sampler: inputs of it."""
    filled = _on_second_world(workflow)
    filled = filled.fill("Prompt", text=prompt).fill("Move the cat", **TOY_MOVED)
    return filled.fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def fill_classifier(workflow: Workflow, **sampler: float) -> Workflow:
    """Put the toy checkpoint into the workflow of classifier guidance; its CLIP is that of `small_models`.

    sampler: inputs of it.
    """
    filled = workflow.fill("Checkpoint", ckpt_name=toy_checkpoint().name).fill("Empty latent", width=128, height=128)
    return filled.fill("Sampler", cfg=TOY_GUIDANCE, **sampler)


def run_case(
    client: ComfyClient, workflow: Workflow, case: Case, checkpoint: Path | None = None, **sampler: float | str
) -> Result:
    """Upload the case's reference and run the workflow on it. checkpoint: another toy than the first one."""
    image = client.upload_image(Image.fromarray(case.picture().image), f"{case.name}-{case.picture_seed}.png")
    filled = fill_case(workflow, case, image, **sampler)
    return client.run((filled.fill("Checkpoint", ckpt_name=checkpoint.name) if checkpoint else filled).graph)


@dataclass(frozen=True)
class Measured:
    """How a result compares with its reference.

    context_psnr, context_ssim: outside both subjects, the PSNR in dB. subject_psnr, subject_ssim: on the reference's
    subject. subject, scene: whether the judge sees what was prompted.
    """

    context_psnr: float
    context_ssim: float
    subject_psnr: float
    subject_ssim: float
    subject: bool
    scene: bool


def measure(judge: Judge, case: Case, result: Image.Image, reference: Picture | None = None) -> Measured:
    """Measure one result picture of a case, beside its reference or another one."""
    reference = reference or case.picture()
    pixels = np.asarray(result.convert("RGB"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    subjects, scenes, found = judge_images(judge, tensor)
    context = ~ndimage.binary_dilation(reference.mask | found[0].numpy(), iterations=SUBJECT_MARGIN)
    _, similarity = structural_similarity(reference.image, pixels, channel_axis=-1, data_range=255, full=True)
    values = [
        value
        for region in (context, reference.mask)
        for value in (
            peak_signal_noise_ratio(reference.image[region], pixels[region], data_range=255),
            similarity[region].mean(),
        )
    ]
    return Measured(*map(float, values), subjects[0] == case.subject, scenes[0] == case.scene)


def on_servers(count: int, work: Callable[[ComfyClient, Job], object], jobs: Iterable[Job]) -> Iterator[object]:
    """Yield `work(client, job)` for every job in order, on `count` servers of this machine at once."""
    with ExitStack() as stack:
        clients: SimpleQueue[ComfyClient] = SimpleQueue()
        for _ in range(count):
            clients.put(stack.enter_context(ComfyClient(stack.enter_context(ComfyServer()))))

        def one(job: Job) -> object:
            client = clients.get()
            try:
                return work(client, job)
            finally:
                clients.put(client)

        pool = stack.enter_context(ThreadPoolExecutor(count))
        try:
            yield from pool.map(one, jobs)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
