"""What Abs-Grad-SAM costs on transformers: `python -m tests.benchmarks.bench_grad_sam_transformer`.

One block and the last layers of Flux.1 (24 heads of 128 channels) with random weights make the prediction of 64 x 64
tokens beside 512 tokens of text. In every turn a plain call and one with Abs-Grad-SAM of two words follow each other:
what else the machine does hits both alike, and ratios are taken within the turn. What the real model has in front, 56
more blocks, both calls would run alike; so the printed ratio is that of the block's share of a model call.

With --passes the same block ends without its closed form, by one backward pass for each of a patch's 64 numbers.
"""

from __future__ import annotations

import argparse
import statistics

import torch

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .bench_transformer import POOLED, TEXT, WIDTH, random_flux
from .turns import MIB, Meter

# Of the block's share of a plain call, beside that call itself.
MOST = 1.0


def main() -> int:
    """Measure, print, and return 1 when the gradients take longer than they may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    parser.add_argument("--heads", type=int, default=24, help="of 128 channels each")
    parser.add_argument("--side", type=int, default=128, help="of the latent; 128 for 64 x 64 tokens")
    parser.add_argument("--passes", action="store_true", help="without the closed form")
    args = parser.parse_args()
    device, cpu = torch.device(args.device), args.device == "cpu"
    alias_pack()
    load_comfyui(device="--cpu" if cpu else "")
    torch.set_num_threads(args.threads)
    from explainable_latents.nodes.core.words.subjects import Subject, Subjects
    from explainable_latents.nodes.host.one_call import call_once, gradient_saliency

    model = random_flux(device, torch.float32 if cpu else torch.bfloat16, args.heads, 0, 1)
    if args.passes:
        # as another node's patch that changes nothing, but might
        options = {"patches": {"attn1_output_patch": [lambda out, extra: 2.0 * torch.sigmoid(0.0 * out) * out]}}
        model.model_options["transformer_options"] = options
    found = tuple(Subject(text, "subject", (0, 1), {}, rows) for text, rows in (("dog", (2,)), ("beach", (5, 6))))
    words = Subjects("a dog on the beach", found, "rules")
    generator = torch.Generator().manual_seed(1)
    start, text, pooled = (
        torch.randn(shape, generator=generator)
        for shape in [(1, 16, args.side, args.side), (1, TEXT, WIDTH), (1, POOLED)]
    )
    latent, positive = {"samples": start}, [[text, {"pooled_output": pooled, "guidance": 3.5}]]
    kinds = {
        "plain call": lambda: call_once(model.clone(), positive, latent, 0.5, 0),
        "with Abs-Grad-SAM": lambda: gradient_saliency(
            model, positive, latent, words, 0.5, 0, "absolute", "structured"
        ),
    }
    how = "a pass for each number of a patch" if args.passes else "closed form"
    print(
        f"one block and head, {args.heads} heads, {(args.side // 2) ** 2} + {TEXT} tokens, {device}, {how}", flush=True
    )
    seconds, memory = ({name: [] for name in kinds} for _ in range(2))
    with torch.inference_mode():
        for turn in range(1 if cpu else 0, args.turns + 1):  # the first one on a GPU is not counted
            for name, run in kinds.items():
                with Meter(device) as meter:
                    run()
                if turn:
                    seconds[name].append(meter.seconds)
                    memory[name].append(meter.memory)
                print(f"  turn {turn}: {name}: {meter.seconds:.2f} s, {meter.memory / MIB:.0f} MiB", flush=True)
    plain, whole = seconds.values()
    ratio = statistics.median(b / a for a, b in zip(plain, whole, strict=True)) - 1
    more = statistics.median(memory["with Abs-Grad-SAM"]) - statistics.median(memory["plain call"])
    verdict = "ok" if ratio <= MOST or args.passes else "FAILED"
    print(f"gradients: {ratio:.2f} of the block's share of a call (at most {MOST:g}), {more / MIB:+.0f} MiB: {verdict}")
    return int(verdict != "ok")


if __name__ == "__main__":
    run_main(main)
