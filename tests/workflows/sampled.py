"""Parts of the graphs that tests queue: a toy picture that is sampled in a few steps with the prompt of any node."""

from __future__ import annotations

from typing import Any

Node = dict[str, Any]
Graph = dict[str, Node]


def node(class_type: str, **inputs: Any) -> Node:
    """A node in API format."""
    return {"class_type": class_type, "inputs": inputs}


def sampled(model: list, steps: int) -> Graph:
    """Checkpoint `model`, a `latent` of 64 × 64 and a `sampler`; the node `positive` is the caller's.

    model: the output that is sampled with, `["model", 0]` for the plain checkpoint.
    """
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name="toy.safetensors"),
        "negative": node("CLIPTextEncode", clip=["model", 1], text="blurry"),
        "latent": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": node(
            "KSampler",
            model=model,
            seed=0,
            steps=steps,
            cfg=2.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            positive=["positive", 0],
            negative=["negative", 0],
            latent_image=["latent", 0],
        ),
    }


def capture(subjects: list, **more: Any) -> Node:
    """Capture Attention on the plain checkpoint, for these subjects."""
    return node(
        "ELCaptureAttention",
        model=["model", 0],
        subjects=subjects,
        start_percent=0.0,
        end_percent=1.0,
        layers="all",
        resize="nearest",
        share="all tokens",
        **more,
    )


def captured_maps(role: str) -> Node:
    """The mean over the steps of what the node `capture` has seen of the latent of `sampler`."""
    return node(
        "ELAttentionSaliency",
        attention=["capture", 1],
        samples=["sampler", 0],
        role=role,
        over_steps="mean",
        each_layer=False,
    )
