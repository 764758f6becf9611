"""Another node rearranges attention so that the prompt is not found in it: every message names that node."""

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.one_call import gradient_saliency, probe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.regional_patches import Couple, left_half
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

HERE = "of tests.host.attention.test_unreadable_attention"


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def with_patches(patch, output=None):
    def install(model):
        model = model.clone()
        model.set_model_attn2_patch(patch)
        if output is not None:
            model.set_model_attn2_output_patch(output)
        return model

    return install


def other_text(n, context, value, extra_options):
    other = conditioning(7)[0][0].expand_as(context)
    return n, other, other


def fewer_tokens(n, context, value, extra_options):
    return n, context[:, 2:70], value[:, 2:70]


def doubled(n, context, value, extra_options):
    return tuple(torch.cat([each * 1.1, each * 0.9]) for each in (n, context, value))


def halved(out, extra_options):
    return sum(out.chunk(2)) / 2


def repeated(n, context, value, extra_options):
    return tuple(torch.cat([each, each]) for each in (n, context, value))


def rolled(out, extra_options):
    first, second = out.chunk(2)
    return (first * second.roll(1, dims=1)).sin()


REARRANGED = {
    "another text": (with_patches(other_text), f"keys are no longer the prompt's, changed by other_text {HERE}"),
    "fewer tokens": (with_patches(fewer_tokens), f"keys are no longer the prompt's, changed by fewer_tokens {HERE}"),
    "other queries": (
        with_patches(doubled, halved),
        f"rows and queries are no longer the picture's, changed by doubled {HERE} and halved {HERE}",
    ),
}
MIXED = {
    "no mixture": (
        with_patches(repeated, rolled),
        f"how its rows are mixed cannot be determined (mixed by repeated {HERE} and rolled {HERE})",
    ),
}


def masked(model, at="1"):
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    MaskedLatent(masking, noise(seed=4), at, KEEP, REFERENCE).install(model)
    return sample(model, 2)


@pytest.mark.parametrize("name", [*REARRANGED, *MIXED])
def test_capture_probe_and_masked_latent_name_the_node(model, name):
    install, message = (REARRANGED | MIXED)[name]
    observed = install(model)
    capture = observe(observed, SUBJECTS)
    made = sample(observed, 2)
    assert torch.equal(made, sample(install(model), 2))
    with pytest.raises(ValueError, match="no attention to dog, beach was seen while this latent was sampled") as error:
        capture.saliency(made, "all", "mean")
    assert message in str(error.value)
    with pytest.raises(ValueError, match="no attention to dog, beach was seen at noise level") as error:
        probe(install(model), conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 0)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="no attention to dog was seen at a manipulated step") as error:
        masked(install(model))
    assert message in str(error.value)


@pytest.mark.parametrize("name", REARRANGED)
def test_gradients_name_the_node(model, name):
    install, message = REARRANGED[name]
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        gradient_saliency(
            install(model), conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 0, "absolute", "structured"
        )


def replaced_forward(x, **kwargs):
    return torch.zeros_like(x)


def tiles(apply_model, args):
    parts = [apply_model(x.contiguous(), args["timestep"], **args["c"]) for x in args["input"].chunk(2, dim=-1)]
    return torch.cat(parts, dim=-1)


def test_a_node_that_replaces_the_attention_itself_is_named(comfy):
    model = random_unet()
    for name, _ in model.model.named_modules():
        if name.endswith("attn2"):
            model.add_object_patch(f"{name}.forward", replaced_forward)
    capture = observe(model, SUBJECTS)
    made = sample(model, 1)
    message = f"not computed where it could be seen, but replaced by replaced_forward {HERE}"
    with pytest.raises(ValueError, match=message):
        capture.saliency(made, "all", "mean")
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        gradient_saliency(model, conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 0, "absolute", "structured")


def test_a_node_that_calls_the_model_on_tiles_is_named(model):
    patched = model.clone()
    patched.set_model_unet_function_wrapper(tiles)
    capture = observe(patched, SUBJECTS)
    with pytest.raises(ValueError, match=f"tiles {HERE} cuts the latent into tiles"):
        capture.saliency(sample(patched, 1), "all", "mean")


def row_by_row(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
    rows = zip(x.split(1), timesteps.split(1), context.split(1), strict=True)
    return torch.cat([executor(*row, y, control, transformer_options, **kwargs) for row in rows])


def in_halves(executor, x, *args, **kwargs):
    return torch.cat([executor(each, *args, **kwargs) for each in x.chunk(2, dim=-1)], dim=-1)


@pytest.mark.parametrize(
    ("call", "seen"),
    [(row_by_row, r"1 rows of \(16, 16\) instead of 2"), (in_halves, r"2 rows of \(16, 8\) instead of 2")],
    ids=["row by row", "in halves"],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_node_that_calls_the_network_in_parts_is_named_in_any_order_of_nodes(model, call, seen, first):
    """Its wrapper is that of the network itself, inside of all that surrounds the model."""
    from comfy.patcher_extension import WrappersMP

    def with_call(model):
        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", call)
        return model

    observed = with_call(model) if first else model.clone()
    capture = observe(observed, SUBJECTS, refine=1)
    observed = observed if first else with_call(observed)
    made = sample(observed, 1)
    assert torch.equal(made, sample(with_call(model), 1))
    with pytest.raises(ValueError, match=f"called with {seen} of .*: {call.__name__} {HERE} splits the batch"):
        capture.saliency(made, "all", "mean")


def test_gradients_name_a_node_that_calls_the_network_in_parts(model):
    from comfy.patcher_extension import WrappersMP

    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", in_halves)
    message = rf"cross-attention output.3.0: the network was called with 1 rows of \(16, 8\).*in_halves {HERE}"
    with torch.inference_mode(), pytest.raises(ValueError, match=message):
        gradient_saliency(patched, conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 0, "absolute", "structured")


def test_rows_that_are_changed_where_no_capture_looks_give_no_map(model):
    """A node that installs its patches when the network is called, behind the capture."""
    from comfy.patcher_extension import WrappersMP

    couple = Couple([left_half(), 1 - left_half()], [conditioning(5)[0][0]])

    def late(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
        patches = dict(transformer_options["patches"])
        patches["attn2_patch"] = [*patches["attn2_patch"], couple.spread]
        patches["attn2_output_patch"] = [couple.blend]
        return executor(x, timesteps, context, y, control, {**transformer_options, "patches": patches}, **kwargs)

    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    observed.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "late", late)
    made = sample(observed, 1)
    assert torch.equal(made, sample(couple.install(model), 1))
    with pytest.raises(ValueError, match=r"there are \(3, 256\) rows and queries and \(3, 77\) rows and keys where 2"):
        capture.saliency(made, "all", "mean")


def test_a_prompt_that_no_region_holds_names_the_node(model):
    couple = Couple([left_half(), 1 - left_half()], [conditioning(5)[0][0]])
    observed = couple.install(model)
    capture = observe(observed, SUBJECTS, positive=conditioning(9))
    made = sample(observed, 2)
    message = "none of its rows has the text of the chosen prompt, put there by Couple.spread of tests.host"
    with pytest.raises(ValueError, match=message):
        capture.saliency(made, "all", "mean")
