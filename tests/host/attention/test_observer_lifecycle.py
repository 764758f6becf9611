"""A capture that is cancelled, fails or is asked for the impossible: what is left, and what is said."""

import gc
import logging
import weakref

import pytest
import torch

from explainable_latents.nodes.core.words.subjects import Subject, Subjects
from explainable_latents.nodes.host.attention.observer import WRAPPER_KEY, observe
from tests.host.unets import SUBJECTS, conditioning, random_unet, sample


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def maps_of(capture):
    return [call.maps for call in capture.runs.kept[-1].saliencies]


def observed(model, **options):
    patcher = model.clone()
    return patcher, observe(patcher, SUBJECTS, **options)


def assert_like_fresh(model, patcher, capture):
    """The next run on the same patcher equals one on a model that was never used."""
    fresh, other = observed(random_unet())
    expected = sample(fresh)
    assert torch.equal(sample(patcher), expected)
    assert all(torch.equal(a, b) for a, b in zip(maps_of(capture), maps_of(other), strict=True))
    assert torch.equal(sample(model), expected)


def test_cancel_in_the_middle(model):
    import comfy.model_management as management

    patcher, capture = observed(model)
    seen = []

    def cancel(step, denoised, x, total):
        seen.append(capture.latest().step)
        if step == 1:
            management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()

    with pytest.raises(management.InterruptProcessingException):
        sample(patcher, 4, callback=cancel)
    assert seen == [0, 1]
    assert capture.latest() is None
    assert capture.runs.kept == []
    assert_like_fresh(model, patcher, capture)


def tensors_alive() -> dict[int, weakref.ref]:
    gc.collect()
    alive = [each for each in gc.get_objects() if issubclass(type(each), torch.Tensor)]
    return {id(each): weakref.ref(each) for each in alive}


def tensors_since(before: dict[int, weakref.ref]) -> list[tuple[int, ...]]:
    """Shapes of the tensors that were not there: ComfyUI may drop another test's meanwhile, so a count says little."""
    now = {key: known() for key, known in tensors_alive().items()}
    return [tuple(each.shape) for key, each in now.items() if key not in before or before[key]() is not each]


@pytest.mark.parametrize("place", ["diffusion_model", "attention", "calc_cond_batch"])
def test_an_exception_in_the_middle(model, place):
    patcher, capture = observed(model)
    sample(patcher)
    before = maps_of(capture)
    broken = patcher.clone()
    calls = []

    def fail(original, *args, **kwargs):
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("out of memory, say")
        return original(*args, **kwargs)

    if place == "attention":
        broken.model_options["transformer_options"]["optimized_attention_override"] = fail
    else:
        broken.add_wrapper_with_key(place, "test", fail)
    alive = tensors_alive()
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(broken, 8)
    assert tensors_since(alive) == []
    assert capture.runs.current is None
    assert all(a is b for a, b in zip(before, maps_of(capture), strict=True))
    assert_like_fresh(model, patcher, capture)


def attributes(model) -> list[dict]:
    """All that the network's modules have, hooks too; of parameters, buffers and hooks the names."""
    return [
        {name: list(value) if isinstance(value, dict) else value for name, value in vars(module).items()}
        for module in model.model.modules()
    ]


def test_nothing_is_installed_until_the_model_is_called(model):
    import copy

    sample(model)
    before, modules = copy.deepcopy(model.model_options), attributes(model)
    patcher, _ = observed(model)
    assert model.wrappers == {}
    assert patcher.model_options == before
    assert all(list(keys) == [WRAPPER_KEY] for keys in patcher.wrappers.values())
    sample(patcher)
    assert patcher.model_options == before
    assert attributes(model) == modules


def test_a_capture_goes_with_its_model(model):
    patcher, capture = observed(model)
    sample(patcher)
    gone = weakref.ref(capture)
    del patcher, capture
    gc.collect()
    assert gone() is None


def test_latest_is_the_running_samplers_map(model):
    patcher, capture = observed(model)
    assert capture.latest() is None
    seen = []
    sample(patcher, callback=lambda *_: seen.append(capture.latest()))
    sample(patcher, callback=lambda *_: seen.append(capture.latest()))
    assert [call.step for call in seen] == [0, 1, 2, 0, 1, 2]
    assert all(torch.equal(a.maps, b.maps) for a, b in zip(seen[:3], seen[3:], strict=True))
    sigmas = [call.sigma for call in seen[:3]]
    assert sigmas == sorted(sigmas, reverse=True)
    for call in seen:
        assert torch.allclose(call.maps.sum((-2, -1)), torch.ones(2, 1))


def test_only_sums_per_subject_are_kept(model):
    patcher, capture = observed(model)
    sample(patcher, 10)
    run = capture.runs.kept[-1]
    held = [call.maps for call in run.saliencies] + list(run.layers.values())
    assert sum(t.numel() for t in held) == 10 * 2 * 256 + 2 * (3 * 256 + 4 * 64)
    assert all(t.untyped_storage().nbytes() == t.numel() * 4 for t in held)


def test_a_node_that_rearranges_queries_is_named_and_the_other_layers_count(model, caplog):
    def halve(n, context, value, extra_options):
        first = extra_options["block"] == ("middle", 0)
        return (n[:, ::2] if first else n), context, value

    def double(n, extra_options):
        first = extra_options["block"] == ("middle", 0)
        return n.repeat_interleave(2, dim=1) if first else n

    patcher, capture = observed(model)
    patcher.set_model_attn2_patch(halve)
    patcher.set_model_attn2_output_patch(double)
    with caplog.at_level(logging.WARNING, "explainable_latents"):
        sample(patcher)
    assert len(capture.runs.kept[-1].layers) == 6
    assert [r.message for r in caplog.records if "middle.0.0" in r.message] == [r.message for r in caplog.records]
    assert len(caplog.records) == 1


def test_a_replaced_attention_module_is_not_taken_for_cross_attention(comfy):
    """The next block's self-attention then comes where the cross-attention was announced."""
    patcher, capture = observed(random_unet())
    patcher.add_object_patch(
        "diffusion_model.middle_block.1.transformer_blocks.0.attn2.forward", lambda x, **kwargs: torch.zeros_like(x)
    )
    # the inner grid of 7x11 has as many positions as the prompt has tokens: the shapes would fit
    sample(patcher, grid=(14, 22))
    assert len(capture.runs.kept[-1].layers) == 6
    assert not any(name == "middle.0.0" for name, _ in capture.runs.kept[-1].layers)


def test_calls_on_tiles_are_left_out_and_named(model, caplog):
    def tiles(apply_model, args):
        parts = [apply_model(x.contiguous(), args["timestep"], **args["c"]) for x in args["input"].chunk(2, dim=-1)]
        return torch.cat(parts, dim=-1)

    patcher, capture = observed(model)
    patcher.set_model_unet_function_wrapper(tiles)
    made = sample(patcher)
    assert "cuts the latent into tiles" in caplog.text
    with pytest.raises(ValueError, match="no attention to dog, beach was seen"):
        capture.saliency(made, "all", "mean")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "output.9"}, "'output.9'; choose auto, all, last, .* among: input.1.0, input.3.0, middle.0.0"),
        ({"layers": "all,"}, "no cross-attention layer is called ''"),
        ({"start_percent": 0.5, "end_percent": 0.5}, "start_percent 0.5 and end_percent 0.5"),
        ({"resize": "cubic"}, "resize 'cubic' is not one of: nearest, bilinear"),
        ({"share": "all"}, "share 'all' is not one of: auto, all tokens, prompt words, all text"),
        ({"positive": [[None, {}]]}, "holds no text"),
    ],
)
def test_wrong_options_are_answered_with_what_is_allowed(model, options, message):
    with pytest.raises(ValueError, match=message):
        observed(model, **options)


def test_a_grid_the_latent_does_not_have(model):
    patcher, _ = observed(model, layers="32x32")
    with pytest.raises(ValueError, match=r"this latent gives 16x16, 8x8"):
        sample(patcher)


def test_subjects_of_another_prompt(model):
    far = Subjects("…", (Subject("dog", "subject", (0, 3), {"l": (80,)}),), "rules")
    patcher = model.clone()
    observe(patcher, far)
    with pytest.raises(ValueError, match=r"positions \[80\] lie outside the conditioning's 77 tokens"):
        sample(patcher)
    with pytest.raises(ValueError, match="no subject to capture"):
        observe(model.clone(), Subjects("", (), "rules"))
    with pytest.raises(ValueError, match="'dog' has token positions for"):
        observe(model.clone(), Subjects("dog", (Subject("dog", "subject", (0, 3), {"t5xxl": (1,)}),), "rules"))


def test_a_model_without_readable_attention_is_named(model):
    patcher = model.clone()
    patcher.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    supported = "supported are SD 1.x, SD 2.x and SDXL .*, Qwen-Image, .*, PixArt"
    with pytest.raises(ValueError, match=rf"the model \w+ \(Linear\) cannot be read: {supported}"):
        observe(patcher, SUBJECTS)


def test_a_model_called_by_a_sampler_without_text(model, caplog):
    import comfy.samplers

    patcher, capture = observed(model)
    guider = comfy.samplers.CFGGuider(patcher)
    guider.inner_set_conds({"other": conditioning(1)})
    guider.predict_noise = lambda x, *args, **kwargs: x
    sigmas = torch.tensor([5.0, 0.0])
    latent = torch.zeros(1, 4, 16, 16)
    guider.sample(latent, latent, comfy.samplers.sampler_object("euler"), sigmas, disable_pbar=True, seed=0)
    assert "no positive text conditioning" in caplog.text
    assert capture.latest() is None
