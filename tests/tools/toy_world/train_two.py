"""Train the second toy checkpoint, on from the first one: `python -m tests.tools.toy_world.train_two` (`make toy-two`).

Three stages with fixed seeds and step counts, each kept in the work folder and not run again: `judge` (first, so that
it can say what the snapshots of the last stage draw), `latents` (the second world's pictures through the first world's
autoencoder) and `diffusion` (UNet and text encoder go on learning). A run that was broken off goes on where it stopped;
with `--so-far` its last snapshot can be measured. Writes `toy_two.safetensors` and `group_judge.safetensors`. Runs on a
CUDA device when there is one, else on the CPU.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import HOME, toy_checkpoint
from .continued import Shown, as_shown, captions, encoded, frozen_autoencoder, part, taught_text
from .diffusion import Plan, finished_or_so_far, staged, train_diffusion
from .export import State, checkpoint
from .group_judge import train_group_judge
from .groups import random_group
from .modules import make_unet
from .objectives import NoisePrediction
from .train import begin
from .vocabulary import Vocabulary, second_world

PICTURES = 24_000
DIFFUSION = Plan(steps=6_000, batch=32, learning_rate=4e-4, bare=0.5)
JUDGE_STEPS = 2_500


def main() -> None:
    """Run every stage that is not finished and write both files."""
    args, device, host = begin(__doc__, HOME / "toy_two")
    first, vocabulary = load_file(toy_checkpoint()), Vocabulary(host.tree, second_world())
    vae = frozen_autoencoder(first, device)

    def diffusion(plan: Plan) -> dict[str, State]:
        torch.manual_seed(9)
        unet, text = make_unet(device).train(), taught_text(first, vocabulary).to(device).train()
        unet.load_state_dict(part(first, "model.diffusion_model."))
        latents, caption = captions(staged(args.work / "latents.pt", lambda: encoded(_draw, range(PICTURES), vae)))
        objective = NoisePrediction(unet)
        train_diffusion(plan, latents, caption, vocabulary, objective, text, args.work / "snapshot.pt")
        return {"unet": unet.state_dict(), "text": text.state_dict()}

    kept = args.work / "judge_snapshot.pt"
    judge = staged(args.work / "judge.pt", lambda: train_group_judge(JUDGE_STEPS, vae, device, kept).state_dict())
    parts = finished_or_so_far(args.so_far, args.work / "diffusion.pt", DIFFUSION, diffusion)
    files = {
        "toy_two": checkpoint(parts["unet"], parts["text"], vae.state_dict(), vocabulary),
        "group_judge": {k: v.half().cpu().contiguous() for k, v in judge.items()},
    }
    for name, state in files.items():
        with whole_file(args.out / f"{name}.safetensors") as file:
            save_file(state, file, metadata={"license": "GPL-3.0", "source": "tests/tools/toy_world/train_two.py"})


def _draw(seed: int) -> tuple[np.ndarray, Shown]:
    return as_shown(random_group(seed))


if __name__ == "__main__":
    run_main(main)
