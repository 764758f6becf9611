"""Train the toy transformer: `python -m tests.tools.toy_world.train_transformer` (`make toy-transformer`).

ComfyUI's own Qwen-Image class from nothing, by flow matching, on the first world's pictures with the second world's
captions; its text encoder goes on from the first checkpoint's, its autoencoder is the first checkpoint's. Two stages
with fixed seeds and step counts, each kept in the work folder and not run again: `latents` and `diffusion`, which goes
on where it was broken off. Writes `toy_transformer.safetensors`. Runs on a CUDA device when there is one, else on the
CPU, in bfloat16 only where the processor has units for it.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import HOME, toy_checkpoint
from .continued import Shown, as_shown, captions, encoded, frozen_autoencoder, taught_text
from .diffusion import Plan, finished_or_so_far, staged, train_diffusion
from .export import State, checkpoint
from .groups import first_world_group
from .modules import make_transformer
from .objectives import VelocityPrediction
from .train import begin
from .vocabulary import Vocabulary, second_world

PICTURES = 20_000
DIFFUSION = Plan(steps=17_000, batch=32, learning_rate=1e-3, bare=0.8)


def main() -> None:
    """Run every stage that is not finished and write the file."""
    args, device, host = begin(__doc__, HOME / "toy_transformer")
    first, vocabulary = load_file(toy_checkpoint()), Vocabulary(host.tree, second_world())
    vae = frozen_autoencoder(first, device)

    def diffusion(plan: Plan) -> dict[str, State]:
        torch.manual_seed(10)
        network, text = make_transformer(device).train(), taught_text(first, vocabulary).to(device).train()
        latents, caption = captions(staged(args.work / "latents.pt", lambda: encoded(_draw, range(PICTURES), vae)))
        objective = VelocityPrediction(network)
        train_diffusion(plan, latents, caption, vocabulary, objective, text, args.work / "snapshot.pt")
        return {"network": network.state_dict(), "text": text.state_dict()}

    parts = finished_or_so_far(args.so_far, args.work / "diffusion.pt", DIFFUSION, diffusion)
    state = checkpoint(parts["network"], parts["text"], vae.state_dict(), vocabulary)
    with whole_file(args.out / "toy_transformer.safetensors") as file:
        save_file(state, file, metadata={"license": "GPL-3.0", "source": "tests/tools/toy_world/train_transformer.py"})


def _draw(seed: int) -> tuple[np.ndarray, Shown]:
    return as_shown(first_world_group(seed))


if __name__ == "__main__":
    run_main(main)
