"""Train the second toy checkpoint, on from the first one: `python -m tests.tools.toy_world.train_two` (`make toy-two`).

Three stages with fixed seeds and step counts, each kept in the work folder and not run again: `judge` (first, so that
it can say what the snapshots of the next stage draw), `latents` (the second world's pictures through the first world's
autoencoder) and `diffusion` (UNet and text encoder go on learning; a run that was broken off goes on where it stopped).
Writes `toy_two.safetensors` and `group_judge.safetensors`. Runs on a CUDA device when there is one, else on the CPU.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import HOME, toy_checkpoint
from .diffusion import Plan, staged, train_diffusion
from .export import State, checkpoint
from .group_judge import train_group_judge
from .groups import Named, describe, random_group
from .modules import TextEncoder, make_autoencoder, make_unet
from .train import as_tensor, begin, drawn, encode
from .vocabulary import Vocabulary, second_world

PICTURES = 24_000
DIFFUSION = Plan(steps=12_000, batch=32, learning_rate=4e-4)
JUDGE_STEPS = 2_000


def part(state: State, prefix: str) -> State:
    """The tensors under a `prefix`, in float32, without it."""
    return {k.removeprefix(prefix): v.float() for k, v in state.items() if k.startswith(prefix)}


def taught_text(state: State, vocabulary: Vocabulary) -> TextEncoder:
    """The first checkpoint's text encoder with a row for every word of `vocabulary`; new words start at random."""
    encoder = TextEncoder(vocabulary.rows)
    own = part(state, "cond_stage_model.transformer.text_model.")
    weights = {k.removeprefix("embeddings.").removeprefix("encoder."): v for k, v in own.items()}
    table = weights.pop("token_embedding.weight")
    encoder.load_state_dict(weights | {"token_embedding.weight": encoder.token_embedding.weight.detach()})
    known = {int(token): row for row, token in enumerate(state["cond_stage_model.token_ids"], start=1)}
    with torch.no_grad():
        encoder.token_embedding.weight[0] = table[0]
        for row, token in enumerate(vocabulary.token_ids, start=1):
            if token in known:
                encoder.token_embedding.weight[row] = table[known[token]]
    return encoder


def main() -> None:
    """Run every stage that is not finished and write both files."""
    args, device, host = begin(__doc__, HOME / "toy_two")
    first, vocabulary = load_file(toy_checkpoint()), Vocabulary(host.tree, second_world())
    vae = make_autoencoder(device).to(memory_format=torch.channels_last).requires_grad_(False)
    vae.load_state_dict(part(first, "first_stage_model."))

    def latents() -> dict:
        images, shown = zip(*drawn(_draw, range(PICTURES)), strict=True)
        raw = encode(vae, as_tensor(images), device)
        return {"latents": 0.18215 * (raw / vae.vae_scale.cpu() + vae.vae_shift.cpu()), "shown": list(shown)}

    def diffusion() -> dict[str, State]:
        torch.manual_seed(9)
        unet, text = make_unet(device).train(), taught_text(first, vocabulary).to(device).train()
        unet.load_state_dict(part(first, "model.diffusion_model."))
        data = staged(args.work / "latents.pt", latents)
        shown = [(scene, [Named(*words) for words in things]) for scene, things in data["shown"]]

        def caption(i: int, rng: np.random.Generator) -> str:
            scene, things = shown[i]
            return describe(things, scene, rng)

        train_diffusion(DIFFUSION, data["latents"], caption, vocabulary, unet, text, args.work / "snapshot.pt")
        return {"unet": unet.state_dict(), "text": text.state_dict()}

    judge = staged(args.work / "judge.pt", partial(_judge, vae, device))
    parts = staged(args.work / "diffusion.pt", diffusion)
    files = {
        "toy_two": checkpoint(parts["unet"], parts["text"], vae.state_dict(), vocabulary),
        "group_judge": {k: v.half().cpu().contiguous() for k, v in judge.items()},
    }
    for name, state in files.items():
        with whole_file(args.out / f"{name}.safetensors") as file:
            save_file(state, file, metadata={"license": "GPL-3.0", "source": "tests/tools/toy_world/train_two.py"})


def _draw(seed: int) -> tuple[np.ndarray, tuple[str, list[tuple[str, str, str, str]]]]:
    """A picture, and its scene with what a caption can say of each thing."""
    group = random_group(seed)
    return group.image, (group.scene, [(t.subject, t.colour, t.size, t.side) for t in group.things])


def _judge(vae: nn.Module, device: torch.device) -> State:
    return train_group_judge(JUDGE_STEPS, vae, device).state_dict()


if __name__ == "__main__":
    run_main(main)
