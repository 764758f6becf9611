"""What capturing joint attention costs: `python -m tests.benchmarks.bench_transformer`.

A Flux.1 with random weights samples one latent of 4,096 tokens (1024 x 1024 pixels) beside 512 tokens of text, without
guidance: without capture; with two subjects captured at every step from the layers that are read by default; from all
layers; as shares of all tokens; from the attention's output; and with their maps refined once. The variants take
turns, so that a busy machine slows all of them alike; compared are the runs of one turn.

On a GPU the network has Flux.1's own size in bfloat16 (24 GB). On a CPU it has 2 heads instead of 24 and 2 and 4
blocks instead of 19 and 38, of which the default reads as large a share.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .turns import MIB, Variants, costs_in_turns

MOST_TIME, MOST_MEMORY = 0.10, 128 * MIB
SIDE, TEXT, WIDTH, POOLED = 128, 512, 4096, 768


def random_flux(device: torch.device, dtype: torch.dtype, heads: int, double: int, single: int):
    """A ModelPatcher of Flux.1's own network with random weights and so many heads and blocks."""
    import comfy.model_patcher
    import comfy.supported_models

    described = {
        "image_model": "flux",
        "in_channels": 16,
        "out_channels": 16,
        "vec_in_dim": POOLED,
        "context_in_dim": WIDTH,
        "hidden_size": 128 * heads,
        "mlp_ratio": 4.0,
        "num_heads": heads,
        "depth": double,
        "depth_single_blocks": single,
        "axes_dim": [16, 56, 56],
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": True,
        "txt_ids_dims": [],
        "dtype": dtype,
    }
    config = comfy.supported_models.Flux(dict(described))
    config.unet_config |= described
    config.manual_cast_dtype = None
    model = config.get_model({}, "", device=device)
    torch.manual_seed(0)
    for value in model.diffusion_model.parameters():
        spread = 0.7 / max(1, value[0].numel() if value.ndim > 1 else 400) ** 0.5
        value.data = (torch.randn(value.shape, device=device) * spread + float(value.ndim == 1)).to(dtype)
    return comfy.model_patcher.ModelPatcher(model, device, device)


def variants(model) -> Variants:
    """The ways to capture, and "none"."""
    from explainable_latents.nodes.core.words.subjects import Subject, Subjects
    from explainable_latents.nodes.host.attention.observer import observe

    found = tuple(Subject(text, "subject", (0, 1), {}, rows) for text, rows in (("dog", (2,)), ("beach", (5, 6))))

    def captured(**options):
        patched = model.clone()
        return patched, observe(patched, Subjects("a dog on the beach", found, "rules"), **options)

    return {
        "none": lambda: (model.clone(), None),
        "capture": captured,
        "all layers": lambda: captured(layers="all"),
        "all tokens": lambda: captured(share="all tokens"),
        "output": lambda: captured(space="output"),
        "refined": lambda: captured(refine=1),
    }


def run(model, steps: int, side: int) -> Tensor:
    """One sampling run of the host: euler, a latent of `side` x `side`."""
    import comfy.sample

    generator = torch.Generator().manual_seed(1)
    noise, text, pooled = (
        torch.randn(s, generator=generator) for s in [(1, 16, side, side), (1, TEXT, WIDTH), (1, POOLED)]
    )
    positive = [[text, {"pooled_output": pooled, "guidance": 3.5}]]
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, 1.0, "euler", "simple", positive, positive, torch.zeros_like(noise), disable_pbar=True,
            seed=1,
        )  # fmt: skip


def main() -> int:
    """Measure, print the table, and return 1 when capturing costs more than it may or changes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3, help="runs of each variant")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    parser.add_argument("--heads", type=int, help="of 128 channels each; Flux.1 has 24, on the CPU 2 are taken")
    parser.add_argument("--side", type=int, default=SIDE, help="of the latent; 128 for 4,096 tokens")
    parser.add_argument("--only", help="names of variants, separated by commas, beside 'none'")
    args = parser.parse_args()
    device, cpu = torch.device(args.device), args.device == "cpu"
    alias_pack()
    load_comfyui(device="--cpu" if cpu else "")
    torch.set_num_threads(args.threads)
    heads, blocks = args.heads or (2 if cpu else 24), (2, 4) if cpu else (19, 38)
    model = random_flux(device, torch.float32 if cpu else torch.bfloat16, heads, *blocks)
    wanted = {"none", *args.only.split(",")} if args.only else None
    kinds = {name: make for name, make in variants(model).items() if wanted is None or name in wanted}
    tokens = (args.side // 2) ** 2
    print(f"Flux.1, {heads} heads, {blocks} blocks, {tokens} + {TEXT} tokens, {args.steps} steps, {device}", flush=True)
    costs = costs_in_turns(kinds, partial(run, steps=args.steps, side=args.side), args.turns, device)
    if "capture" not in costs:
        return 0
    good, line = costs["capture"].verdict("capture", MOST_TIME, MOST_MEMORY)
    print(line)
    return int(not good)


if __name__ == "__main__":
    run_main(main)
