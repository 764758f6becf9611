"""What blocks put out: read as the network made it, and the rest of the call left out only where nobody notices."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import Any

import pytest
import torch

from explainable_latents.nodes.host.families.family import family_of, network_of
from explainable_latents.nodes.host.features.block_outputs import BlockOutputs
from explainable_latents.nodes.host.features.picture_features import FeatureReader, chosen_block
from explainable_latents.nodes.host.one_call import call_once
from tests.host.unets import conditioning, noise, random_unet, sample

KINDS = ("SD15", "SD20", "SDXL")


def by_hooks(model: Any, latents: torch.Tensor, level: float, seed: int, positive: list | None = None) -> dict:
    """The outputs of all blocks [rows,C,h,w] by the last module of each, in a call of the model of its own."""
    network, found, handles = network_of(model), {}, []
    for part, blocks in (("input", network.input_blocks), ("output", network.output_blocks)):
        for i, block in enumerate(blocks):
            keep = partial(lambda name, _m, _a, out: found.__setitem__(name, out.float().clone()), f"{part}.{i}")
            handles.append(block[-1].register_forward_hook(keep))
    middle = network.middle_block[-1]
    handles.append(middle.register_forward_hook(lambda _m, _a, out: found.__setitem__("middle.0", out.float().clone())))
    try:
        call_once(model.clone(), positive or conditioning(1), {"samples": latents}, level, seed)
    finally:
        for handle in handles:
            handle.remove()
    return found


def read(model: Any, blocks: list[str], latents: torch.Tensor, positive: list | None = None) -> tuple[dict, int]:
    """The blocks' outputs, and how many calls were left early."""
    observer = BlockOutputs(model.clone(), blocks)
    call = partial(call_once, observer.patcher, positive or conditioning(1), {"samples": latents}, 0.3, 5)
    return observer.read(call, latents.shape), observer.left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(16, 16), (9, 14), (11, 7)])
def test_every_block_is_read_as_the_network_made_it(comfy, kind, grid):
    model, latents = random_unet(kind), noise(3, grid)
    scales = family_of(model).blocks(network_of(model))
    assert list(scales) == ["input.0", "input.1", "input.2", "input.3", "middle.0", "output.0", "output.1", "output.2"]
    expected = by_hooks(model, latents, 0.3, 5)
    found, left = read(model, list(scales), latents)
    assert left == 1
    for name, scale in scales.items():
        assert torch.equal(found[name], expected[name].mean(0)), name
        assert found[name].shape[1:] == tuple(-(-side // scale) for side in grid), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_too(comfy, dtype):
    model, latents = random_unet("SD15", dtype), noise(2, (8, 12))
    expected = by_hooks(model, latents, 0.3, 5)
    found, _ = read(model, ["output.1"], latents)
    assert found["output.1"].dtype == torch.float32
    assert torch.equal(found["output.1"], expected["output.1"].mean(0))


def test_auto_ends_the_first_half_of_the_decoder(comfy):
    assert chosen_block(random_unet("SD15"), "auto") == "output.1"
    assert chosen_block(random_unet("SD15"), "output.2") == "output.2"
    with pytest.raises(ValueError, match=r"block 'output\.3' is not one of: auto, input\.0"):
        chosen_block(random_unet("SD15"), "output.3")
    # as deep as the real ones: three halvings with two blocks each, and two for SDXL
    deep = random_unet("SD15", num_res_blocks=[2] * 4, channel_mult=[1] * 4, **_depths(4))
    assert chosen_block(deep, "auto") == "output.5"
    xl = random_unet("SDXL", num_res_blocks=[2] * 3, channel_mult=[1] * 3, **_depths(3))
    assert chosen_block(xl, "auto") == "output.2"


def _depths(levels: int) -> dict:
    return {
        "transformer_depth": [1] * (2 * levels),
        "transformer_depth_output": [1] * (3 * levels),
        "model_channels": 32,
    }


@pytest.mark.parametrize("block", ["input.1", "middle.0", "output.0", "output.2"])
def test_leaving_early_changes_no_number_and_leaves_the_host_clean(comfy, block):
    """Read once with the whole call and once without its rest; afterwards the model samples as a fresh one."""
    model, latents = random_unet("SD15"), noise(2)
    before = sample(model, 2)
    early, left = read(model, [block], latents)
    assert left == 1
    watched = model.clone()
    watched.set_model_output_block_patch(lambda h, skipped, options: (h, skipped))
    whole, left = read(watched, [block], latents)
    assert left == 0
    assert torch.equal(early[block], whole[block])
    assert torch.equal(sample(model, 2), before)


class Counting:
    """Something of another node: counts how often it runs."""

    def __init__(self) -> None:
        self.count = 0

    def wrapper(self, executor, *args, **kwargs):
        out = executor(*args, **kwargs)
        self.count += 1
        return out

    def output_patch(self, h, skipped, options):
        self.count += 1
        return h, skipped

    def attention_patch(self, n, context, value, options):
        self.count += 1
        return n, context, value

    def replacement(self, q, k, v, options):
        import comfy.ldm.modules.attention as attention

        self.count += 1
        return attention.optimized_attention(q, k, v, options["n_heads"])

    def override(self, function, *args, **kwargs):
        self.count += 1
        return function(*args, **kwargs)

    def function_wrapper(self, apply, args):
        out = apply(args["input"], args["timestep"], **args["c"])
        self.count += int(bool((out != 0).any()))
        return out

    def hook(self, *_):
        self.count += 1


def install(model: Any, seen: Counting, what: str) -> Any:
    """Puts something of another node on the model; the handle to remove it where it is on the network itself."""
    from comfy.patcher_extension import WrappersMP

    wrappers = {
        "network wrapper": WrappersMP.DIFFUSION_MODEL,
        "model wrapper": WrappersMP.APPLY_MODEL,
        "batch wrapper": WrappersMP.CALC_COND_BATCH,
        "prediction wrapper": WrappersMP.PREDICT_NOISE,
    }
    if what in wrappers:
        model.add_wrapper_with_key(wrappers[what], "another node", seen.wrapper)
    elif what == "block patch":
        model.set_model_output_block_patch(seen.output_patch)
    elif what == "attention patch":
        model.set_model_attn2_patch(seen.attention_patch)
    elif what == "replaced attention":
        model.set_model_attn1_replace(seen.replacement, "output", 3)
    elif what == "override":
        model.model_options["transformer_options"]["optimized_attention_override"] = seen.override
    elif what == "function wrapper":
        model.set_model_unet_function_wrapper(seen.function_wrapper)
    elif what == "module hook":
        return network_of(model).out[0].register_forward_hook(seen.hook)
    return None


# how often each runs in a whole call of this network: its last transformer block and last three decoder blocks included
RUNS = {
    "network wrapper": 1,
    "model wrapper": 1,
    "batch wrapper": 1,
    "prediction wrapper": 1,
    "block patch": 4,
    "attention patch": 7,
    "replaced attention": 1,
    "override": 14,
    "function wrapper": 1,
    "module hook": 1,
}


@pytest.mark.parametrize("what", RUNS)
def test_nothing_of_another_node_is_starved(comfy, what):
    model, seen = random_unet("SD15").clone(), Counting()
    plain, left = read(model, ["output.0"], noise(2))
    assert left == 1
    handle = install(model, seen, what)
    try:
        found, left = read(model, ["output.0"], noise(2))
    finally:
        if handle is not None:
            handle.remove()
    assert (left, seen.count) == (0, RUNS[what])
    torch.testing.assert_close(found["output.0"], plain["output.0"])


def test_a_controlnet_takes_part_and_is_used_up(comfy):
    from comfy.controlnet import ControlBase

    class Hint(ControlBase):
        """Adds a constant after the middle and to a skip connection of the decoder's end."""

        def __init__(self):
            super().__init__()
            self.given = []

        def get_control(self, x, t, cond, batched, options):
            self.given.append({"middle": [torch.full((len(x), 128, 8, 8), 0.5)], "output": [torch.zeros(1)] * 4})
            return self.given[-1]

        def copy(self):
            return self

        def pre_run(self, model, percent_to_timestep_function):
            pass

        def cleanup(self):
            pass

        def get_models(self):
            return []

        def inference_memory_requirements(self, dtype):
            return 0

    hint = Hint()
    positive = [[context, {**more, "control": hint}] for context, more in conditioning(1)]
    model, latents = random_unet("SD15", model_channels=64), noise(2)
    plain, _ = read(model, ["middle.0"], latents)
    found, left = read(model, ["middle.0"], latents, positive)
    assert left == 0
    assert [len(each["output"]) for each in hint.given] == [0]
    torch.testing.assert_close(found["middle.0"], plain["middle.0"] + 0.5)


def test_another_nodes_change_in_place_comes_after_what_is_read(comfy):
    """FreeU scales half of the channels where they lie."""

    def freeu(h, skipped, options):
        h[:, : h.shape[1] // 2] *= 2
        return h, skipped

    model, latents = random_unet("SD15"), noise(1)
    plain, _ = read(model, ["middle.0"], latents)
    patched = model.clone()
    patched.set_model_output_block_patch(freeu)
    found, _ = read(patched, ["middle.0"], latents)
    assert torch.equal(found["middle.0"], plain["middle.0"])


def test_a_compiled_model_is_read_uncompiled_to_the_end(comfy):
    import comfy_extras.nodes_torch_compile as torch_compile

    model, latents = random_unet("SD15"), noise(1)
    compiled = torch_compile.TorchCompileModel.execute(model, backend="eager")[0]
    found, left = read(compiled, ["output.0"], latents)
    assert left == 0
    plain, _ = read(model, ["output.0"], latents)
    torch.testing.assert_close(found["output.0"], plain["output.0"])


@pytest.mark.parametrize(
    ("positive", "words"),
    [
        (lambda: conditioning(1) + conditioning(2), "several conditionings are combined"),
        (lambda: conditioning(1, area=(8, 8, 0, 0), strength=1.0), "the conditioning has an area"),
        (lambda: conditioning(1, start_percent=0.0, end_percent=0.2), "the model was not called"),
    ],
)
def test_what_is_not_one_prompt_of_the_whole_picture_is_an_error(comfy, positive, words):
    model = random_unet("SD15")
    with pytest.raises(ValueError, match=words):
        read(model, ["output.0"], noise(2), positive())
    assert read(model, ["output.0"], noise(2))[1] == 1


def test_a_node_that_cuts_the_latent_into_tiles_is_named(comfy):
    model = random_unet("SD15").clone()

    def tiles(apply, args):
        x = args["input"]
        return torch.cat([apply(half, args["timestep"], **args["c"]) for half in x.split(8, dim=-1)], -1)

    model.set_model_unet_function_wrapper(tiles)
    with pytest.raises(ValueError, match=r"tiles of tests\.host\.features\.test_block_outputs cuts it up"):
        read(model, ["output.0"], noise(2))


def test_values_that_are_not_finite_are_an_error(comfy):
    weights = random_unet("SD15").model.diffusion_model.state_dict()
    weights["input_blocks.0.0.bias"] = torch.full_like(weights["input_blocks.0.0.bias"], float("nan"))
    with pytest.raises(ValueError, match=r"the output of block output\.0 is not finite"):
        read(random_unet("SD15", weights=weights), ["output.0"], noise(1))


def test_a_node_that_leaves_the_blocks_out_is_an_error(comfy):
    model = random_unet()
    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    model.add_wrapper_with_key(kind, "cached", lambda executor, x, *args, **kwargs: torch.zeros_like(x))
    with pytest.raises(ValueError, match=r"block output\.0 was not computed where it could be seen"):
        read(model, ["output.0"], noise(1))


def reader(model, noises=3, levels=(0.3,), seed=5):
    return FeatureReader(model, conditioning(1), ("output.1",), levels, noises, seed)


def features(made: FeatureReader, latents: torch.Tensor) -> list:
    return [[each["output.1"] for each in found] for found in made.read(latents, lambda done, total: None)]


def test_noises_are_batched_in_one_call_and_averaged(comfy):
    from comfy.patcher_extension import WrappersMP

    model, latents, rows = random_unet("SD15"), noise(1), []
    plain = model.clone()

    def counting(executor, x, *args, **more):
        rows.append(len(x))
        return executor(x, *args, **more)

    plain.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "counts", counting)
    ((found,),) = features(reader(plain), latents)
    assert rows == [3]
    each = by_hooks(model, latents.repeat(3, 1, 1, 1), 0.3, 5)["output.1"]
    assert torch.equal(found, each.mean(0))
    assert not torch.allclose(each[0], each[1]), "the noises differ"


def test_a_pictures_features_do_not_depend_on_its_batch(comfy):
    model, latents = random_unet("SD15"), noise(3, (10, 6))
    together = features(reader(model, 2, (0.1, 0.5)), latents)
    assert [len(each) for each in together] == [2, 2, 2]
    for i in range(3):
        ((low, high),) = features(reader(model, 2, (0.1, 0.5)), latents[i : i + 1])
        assert torch.equal(together[i][0], low)
        assert torch.equal(together[i][1], high)
        assert not torch.allclose(low, high)


def test_progress_is_told_and_cancel_ends_it(comfy):
    told, model = [], random_unet("SD15")

    def report(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        list(reader(model, 1, (0.1, 0.5)).read(noise(3), report))
    assert told == [(1, 6), (2, 6), (3, 6)]


def test_no_noise_is_an_error(comfy):
    with pytest.raises(ValueError, match="noises 0 is not a whole number from 1"):
        reader(random_unet("SD15"), 0)


def test_captures_on_the_model_are_not_disturbed_and_nothing_is_kept(comfy):
    from explainable_latents.nodes.host.attention.observer import observe
    from tests.host.unets import SUBJECTS

    model = random_unet("SD15").clone()
    capture = observe(model, SUBJECTS)
    samples = sample(model, 2)
    expected = capture.saliency(samples, "all", "mean").maps
    ((found,),) = features(reader(model), noise(1))
    assert torch.equal(capture.saliency(samples, "all", "mean").maps, expected)
    kept = weakref.ref(found)
    del found
    gc.collect()
    assert kept() is None
