"""What capturing attention costs: `python -m tests.benchmarks.bench_attention` (`make bench`).

A UNet of full SD 1.5 size with random weights samples one 512x512 latent with classifier-free guidance: without
capture, with capture of two subjects at every step, with their maps refined once by self-attention, with two words
more that are not in the prompt, with all words of a prompt of 75, and in the published way, which keeps the raw maps of
every layer and step. The variants take turns, so that a busy machine slows all of them alike; compared are the runs of
one turn. What refining itself computes is less than the noise between two runs: `--refining-alone` measures it beside a
plain run.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from ..tools.comfyui.command import run_main
from ..tools.comfyui.inprocess import load_comfyui
from ..tools.comfyui.pack import alias_pack
from .turns import MIB, Meter, Variants, costs_in_turns

MOST_TIME, MOST_MEMORY = 0.05, 64 * MIB


class RawMaps:
    """The published way: a hook keeps every probability matrix [rows·heads,Q,T] of cross-attention until the end."""

    def __init__(self, tokens: int) -> None:
        self.maps: list[Tensor] = []
        self._tokens = tokens

    def __call__(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
        """An attention override."""
        if k.shape[1] == self._tokens:
            split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k)]
            scores = split[0] @ split[1].transpose(-1, -2) * split[0].shape[-1] ** -0.5
            self.maps.append(torch.softmax(scores.float(), dim=-1))
        return attention(q, k, v, heads, *args, **kwargs)


def full_size_model(
    device: torch.device,
    dtype: torch.dtype,
    *,
    computes_in: torch.dtype | None = None,
    stays_on: torch.device | None = None,
    channels: int = 320,
):
    """A ModelPatcher of SD 1.5's own UNet with random weights.

    computes_in: the host casts the weights to this precision when they are used. stays_on: where they are until the
    host loads them, the `device` unless given. channels: fewer than SD 1.5's make a network for a quick try.
    """
    import comfy.model_patcher
    import comfy.supported_models

    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels,
        "num_res_blocks": [2, 2, 2, 2],
        "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        "transformer_depth_middle": 1,
        "use_spatial_transformer": True,
        "context_dim": 768,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "use_temporal_attention": False,
        "legacy": False,
        "use_checkpoint": False,
        "dtype": dtype,
    }
    config = comfy.supported_models.SD15(config)
    config.manual_cast_dtype = computes_in
    home = stays_on or device
    model = config.get_model({}, "", device=home)
    torch.manual_seed(0)
    for value in model.diffusion_model.parameters():
        value.data = (torch.randn(value.shape, device=home) * (0.7 / max(1, value[0].numel()) ** 0.5)).to(dtype)
    return comfy.model_patcher.ModelPatcher(model, device, home)


@functools.cache
def random_clip():
    """SD 1.x's tokenizer with random encodings."""
    import comfy.sd
    import comfy.sd1_clip

    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = comfy.sd1_clip.SD1Tokenizer(), {}
    context = torch.randn((1, 77, 768), generator=torch.Generator().manual_seed(2))
    clip.encode_from_tokens_scheduled = lambda *_, **__: [[context, {}]]
    return clip


def variants(model) -> Variants:
    """The ways to capture, and "none"."""
    from explainable_latents.nodes.core.words.subjects import Subject, Subjects
    from explainable_latents.nodes.core.words.tokens import TokenSpan
    from explainable_latents.nodes.host.attention.observer import observe

    dog, beach = (Subject(text, "subject", (0, 1), {"l": (i,)}) for i, text in ((2, "dog"), (5, "beach")))

    def captured(**options):
        patched = model.clone()
        return patched, observe(patched, Subjects("a dog on the beach", (dog, beach), "rules"), **options)

    def looked(reading: str):
        return captured(clip=random_clip(), look_for="cat, blue sky", reading=reading)

    def every():
        prompt, patched = "dog " * 75, model.clone()
        spans = tuple(TokenSpan(i + 1, 4 * i, 4 * i + 3) for i in range(75))
        return patched, observe(patched, Subjects(prompt, (), "rules", prompt_tokens={"l": spans}), all_words=True)

    def raw():
        patched, maps = model.clone(), RawMaps(77)
        patched.model_options["transformer_options"]["optimized_attention_override"] = maps
        return patched, maps

    return {
        "none": lambda: (model.clone(), None),
        "capture": captured,
        "refined": lambda: captured(refine=1),
        "words not in the prompt": lambda: looked("softmax"),
        "their scores": lambda: looked("scores"),
        "all words": every,
        "raw maps": raw,
    }


def run(model, steps: int, side: int = 64) -> Tensor:
    """One sampling run of the host: euler, guidance 7, a latent of `side` x `side`."""
    import comfy.sample

    generator = torch.Generator().manual_seed(1)
    noise, positive, negative = (torch.randn(s, generator=generator) for s in [(1, 4, side, side)] + [(1, 77, 768)] * 2)
    conditionings = ([[positive, {}]], [[negative, {}]])
    settings = (steps, 7.0, "euler", "normal")
    return comfy.sample.sample(
        model, noise, *settings, *conditionings, torch.zeros_like(noise), disable_pbar=True, seed=1
    )


def refining_alone(model, turns: int, device: torch.device) -> float:
    """The time in which two maps are refined once by three layers of 64x64, over that of a plain step: the median."""
    from comfy.ldm.modules.attention import attention_pytorch

    from explainable_latents.nodes.core.attention.refine import SelfAttention, refine

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return attention_pytorch(q, k, v, 8, mask)

    dtype = model.model.get_dtype()
    layers = [
        SelfAttention(*torch.randn(2, 1, 64**2, 320, device=device, dtype=dtype), 8, (64, 64), attend) for _ in range(3)
    ]
    maps, shares = torch.rand(2, 1, 64, 64, device=device), []
    refine(maps, layers, 1)
    for turn in range(turns):
        with Meter(device) as step:
            run(model.clone(), 1)
        with Meter(device) as refining:
            refine(maps, layers, 1)
        shares.append(refining.seconds / step.seconds)
        print(f"  turn {turn + 1}: step {step.seconds:.2f} s, refining {refining.seconds:.2f} s", flush=True)
    return statistics.median(shares)


@torch.inference_mode()  # as the host runs its nodes
def main() -> int:
    """Measure, print the table, and return 1 when capturing costs more than it may or changes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5, help="runs of each variant")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; one gives the steadiest numbers")
    parser.add_argument("--only", nargs="+", help="names of variants, beside 'none'")
    parser.add_argument("--refining-alone", action="store_true", help="only what refining itself computes")
    args = parser.parse_args()
    device = torch.device(args.device)
    alias_pack()
    load_comfyui(device="--cpu" if args.device == "cpu" else "")
    torch.set_num_threads(args.threads)
    model = full_size_model(device, torch.float32 if args.device == "cpu" else torch.float16)
    print(f"SD 1.5 size, 512x512, {args.steps} steps with guidance, {device}, {args.threads} threads", flush=True)
    if args.refining_alone:
        share = refining_alone(model, args.turns, device)
        print(f"refining: {share:.1%} of a plain step (at most {MOST_TIME:.0%})")
        return int(share > MOST_TIME)
    kinds = variants(model)
    if args.only:
        kinds = {name: make for name, make in kinds.items() if name in ("none", *args.only)}
    costs = costs_in_turns(kinds, functools.partial(run, steps=args.steps), args.turns, device)
    limited = [name for name in ("capture", "refined") if name in costs]
    verdicts = [costs[name].verdict(name, MOST_TIME, MOST_MEMORY) for name in limited]
    print(*(line for _, line in verdicts), sep="\n")
    return int(not all(good for good, _ in verdicts))


if __name__ == "__main__":
    run_main(main)
