"""On a GPU, with weights that the host keeps in main memory: nothing mixes devices, and the numbers are the CPU's.

See `pretended_gpu` for how this is tried without one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

from explainable_latents.nodes.core.attention.looked_for import READINGS
from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.maps.filters import OPERATIONS, apply_filter
from explainable_latents.nodes.core.maps.masks import CHANNELS_TO_MASK, COMBINATIONS, Shaping, saliency_masks
from explainable_latents.nodes.core.maps.measures import compare
from explainable_latents.nodes.core.maps.parts import KEPT_PARTS
from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.maps.thresholds import RULES
from explainable_latents.nodes.core.methods.appearance import AppearanceTransfer, Schedule
from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.box_losses import BoxLoss
from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention
from explainable_latents.nodes.core.methods.dense_diffusion import DenseDiffusion
from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone
from explainable_latents.nodes.core.methods.taught_regions import Perceptrons, predict
from explainable_latents.nodes.core.methods.word_places import Boxes, Masks
from explainable_latents.nodes.core.words.alignment import Alignment
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.editing.appearance import AppearancePicture
from explainable_latents.nodes.host.editing.cross_image_attention import CrossImageAttentionEditor
from explainable_latents.nodes.host.editing.dense_diffusion import install_dense_diffusion
from explainable_latents.nodes.host.editing.edit_friendly import invert_edit_friendly
from explainable_latents.nodes.host.editing.eye_for_an_eye import EyeForAnEyeEditor
from explainable_latents.nodes.host.editing.inversion import invert
from explainable_latents.nodes.host.editing.local_blend import LocalBlend
from explainable_latents.nodes.host.editing.mutual_self_attention import MutualSelfAttentionEditor
from explainable_latents.nodes.host.editing.own_run import Guided, schedule
from explainable_latents.nodes.host.editing.paths import Path
from explainable_latents.nodes.host.editing.placed_phrases import PlacedPhrases
from explainable_latents.nodes.host.editing.plug_and_play import PlugAndPlayEditor
from explainable_latents.nodes.host.editing.prompt_difference import difference_map
from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor
from explainable_latents.nodes.host.editing.regional_attention import install_regions
from explainable_latents.nodes.host.editing.structured_attention import install_structured_diffusion
from explainable_latents.nodes.host.editing.twin_sampling import Twin
from explainable_latents.nodes.host.editing.weighted_words import install_weights
from explainable_latents.nodes.host.features.picture_features import FeatureReader
from explainable_latents.nodes.host.one_call import gradient_saliency, probe
from explainable_latents.nodes.host.regions import Segmenting, outputs, segment_pictures
from explainable_latents.nodes.host.same_prompt import Encoded
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
from explainable_latents.nodes.host.ui.heat_maps import HeatMaps, raw_masks
from tests.host.pretended_gpu import GPU, pretended_gpu, values_of
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample
from tests.tools.thorough import THOROUGH, further

GRID = (6, 8)
DOG = SUBJECTS.with_role("subject")

# The same operations on the same numbers; only the sizes of blocks and batches are chosen by the device.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}

OFFLOADED = [("manual cast", torch.float16), ("low memory", torch.bfloat16)]


def in_turn(values: Iterable[Any], first: int = 0) -> list:
    """Each value with each of `OFFLOADED`; `make test` runs it with one of them, these in turn, from the `first` on."""
    return [
        pytest.param(value, *way, marks=() if (i + j + first) % 2 == 0 else pytest.mark.matrix)
        for i, value in enumerate(values)
        for j, way in enumerate(OFFLOADED)
    ]


@pytest.fixture(scope="module")
def offloaded(comfy) -> Callable[..., tuple]:
    """Gives a ModelPatcher for the GPU whose weights stay in main memory, and its twin for the CPU.

    manual cast: the weights are in another precision than the host computes in. low memory: none of them fitted.
    """
    from comfy.model_patcher import ModelPatcher
    from comfy.patcher_extension import WrappersMP

    def stay(executor: object, model: Any, shape: object, conds: dict, **options: object) -> tuple:
        """In place of loading, which asks the driver: what it leaves behind when there is no room for any weight."""
        return model.model, conds, []

    def make(way: str, dtype: torch.dtype, kind: str = "SD15") -> tuple:
        manual = way == "manual cast"
        twin = random_unet(kind, torch.float32, computes_in=dtype) if manual else random_unet(kind, dtype)
        for module in twin.model.diffusion_model.modules():
            if hasattr(module, "comfy_cast_weights"):
                module.comfy_cast_weights = True
        model = ModelPatcher(twin.model, GPU, torch.device("cpu"))
        model.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, "weights stay", stay)
        return model, twin

    return make


def on_both(models: tuple, run: Callable[[Any], Any]) -> tuple[Any, Any]:
    """What `run` gives on the GPU and on the CPU, as a node runs it: in inference mode."""
    model, twin = models
    with torch.inference_mode():
        expected = run(twin)
        with pretended_gpu():
            return run(model), expected


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(values_of(found), expected, **CLOSE)


@pytest.mark.parametrize(("way", "dtype"), OFFLOADED)
def test_capturing(offloaded, toy, way, dtype):
    def run(model):
        model, devices = model.clone(), []
        asked = {"clip": toy.clip, "look_for": "cat, red"}
        looked = [observe(model, DOG, reading=reading, **asked) for reading in READINGS]
        capture = observe(model, SUBJECTS, share="prompt words", resize="bilinear")
        refined = observe(model, SUBJECTS, refine=2)
        samples = sample(model, 2, grid=GRID, batch=2, callback=lambda *_: devices.append(capture.latest().maps.device))
        saliency = capture.saliency(samples, "all", "each"), capture.saliency(samples, "subject", "mean", True)
        saliency = *saliency, refined.saliency(samples, "all", "sum")
        saliency = *saliency, *(each.saliency(samples, "looked for", "mean") for each in looked)
        return samples, *(each.maps for each in saliency), set(devices)

    found, expected = on_both(offloaded(way, dtype), run)
    assert found[-1] == {GPU}
    for pair in zip(found[:-1], expected[:-1], strict=True):
        assert_same(*pair)


def test_on_a_gpu_the_users_own_backend_refines_and_on_the_cpu_the_fused_attention(offloaded):
    """The network has 14 attentions; two layers refine twice."""
    from comfy.patcher_extension import WrappersMP

    def run(model):
        calls, model = [], model.clone()

        def wrapper(executor, x, timesteps, context, y, control, transformer_options, **kwargs):
            previous = transformer_options["optimized_attention_override"]

            def override(attention, *args, **inner):
                def backend(*of_call, **more):
                    calls.append(attention)
                    return attention(*of_call, **more)

                return previous(backend, *args, **inner)

            options = {**transformer_options, "optimized_attention_override": override}
            return executor(x, timesteps, context, y, control, options, **kwargs)

        observe(model, SUBJECTS, refine=2)
        model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "other", wrapper)
        sample(model, 1, grid=GRID)
        return len(calls)

    assert on_both(offloaded("manual cast", torch.float16), run) == (14 + 2 * 2, 14)


MASKINGS = {
    "attention": AttentionMasking(DOG, Shaping("mean", smooth_sigma=1.0, dilate_iterations=1)),
    "structured": GradientMasking(DOG, Shaping("mean + k·std", 0.5)),
    "exact": GradientMasking(DOG, Shaping("otsu"), "together", solver="exact"),
    "image": ImageMasking(torch.linspace(0, 1, 48).view(1, *GRID)),
}


@pytest.mark.parametrize(("masking", "way", "dtype"), in_turn(MASKINGS))
def test_masked_latents(offloaded, masking, way, dtype):
    def run(model):
        model = model.clone()
        plan = MaskedLatent(
            MASKINGS[masking], noise(1, GRID, 5), "0, 1", Policy("cached reference", 80), Policy("reference")
        )
        report = plan.install(model)
        samples = sample(model, 2, grid=GRID)
        masks, saliency, text = report.outputs(samples)
        return text, samples, masks, saliency.maps if isinstance(saliency, Saliency) else samples

    found, expected = on_both(offloaded(way, dtype), run)
    assert found[0] == expected[0]
    for pair in zip(found[1:], expected[1:], strict=True):
        assert_same(*pair)


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SDXL"], 1))
def test_editing_by_attention(offloaded, kind, way, dtype):
    """Prompt-to-Prompt with a word of two tokens, weights, and blending with a mask of the attention; weights alone."""
    shares = (*((i, i, 1.0) for i in range(77) if i not in (2, 3)), (2, 2, 0.5), (2, 3, 0.5))
    windows = Window(), {5: Window(0, 0.5)}, {4: 2.0}, Window()
    method = PromptToPrompt(Alignment((77, 77), shares, frozenset({6})), *windows, 1)
    texts = [(name, Encoded((conditioning(seed)[0][0],), {})) for name, seed in (("old", 5), ("new", 1))]

    def run(model):
        both, weighed, masking = model.clone(), model.clone(), AttentionMasking(DOG, Shaping("mean"))
        blend = LocalBlend(masking, masking, 0.5)
        Twin(conditioning(5), [PromptToPromptEditor(method, texts, "")], blend=blend).install(both)
        install_weights(weighed).weights = {3: 2.5, 6: -1.0}
        return [sample(each, 2, grid=GRID, batch=2) for each in (both, weighed)]

    for pair in zip(*on_both(offloaded(way, dtype, kind), run), strict=True):
        assert_same(*pair)


@THOROUGH  # what it consists of is sampled by the others, and it takes a minute
@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15"]))
def test_inversions_and_what_uses_them(offloaded, kind, way, dtype):
    """The path is in main memory, the sampler's state on the device."""
    import comfy.sample

    latent, mask = {"samples": noise(2, GRID)}, ImageMasking(torch.linspace(0, 1, 48).view(1, *GRID))

    def run(model):
        levels = schedule(model, 2, "normal", 1.0, None)
        guided = Guided(model, conditioning(5), conditioning(2), 2.0)
        found = invert(guided, latent, levels, 1, "higher level", True)
        both, masked = model.clone(), model.clone()
        Twin(conditioning(5), path="recorded", trajectory=found.path).install(both)
        policies = Policy("keep"), Policy("recorded path")
        MaskedLatent(mask, latent["samples"], "1, 2", *policies, found.path).install(masked)
        friendly, sampler = invert_edit_friendly(guided, latent, levels, 0.0, 3)
        prompts = conditioning(1), conditioning(2), friendly.start["samples"]
        edited = comfy.sample.sample_custom(model, latent["samples"], 2.0, sampler, levels, *prompts, seed=0)
        sampled = (sample(each, 2, grid=GRID, batch=2) for each in (both, masked))
        map_of = difference_map(model, conditioning(5), conditioning(1), latent, 0.5, 2, 1).maps
        return found.path.states[0], found.round_trip["samples"], edited, *sampled, map_of

    for pair in zip(*on_both(offloaded(way, dtype, kind), run), strict=True):
        assert_same(*pair)


@pytest.mark.parametrize(
    ("name", "way", "dtype", "kind"),
    [
        ("MasaCtrl", "manual cast", torch.float16, "SD15"),
        further(("Plug-and-Play", "low memory", torch.bfloat16, "SDXL")),
        ("Cross-Image Attention", "manual cast", torch.float16, "SD15"),
        pytest.param("Cross-Image Attention", "low memory", torch.bfloat16, "SDXL", marks=pytest.mark.matrix),
        further(("Eye-for-an-Eye", "low memory", torch.float16, "SD15")),
    ],
)
def test_editing_by_self_attention(offloaded, name, way, dtype, kind):
    """MasaCtrl and both that give an appearance with masks of attention, Plug-and-Play with features."""
    masking = AttentionMasking(DOG, Shaping("mean"))
    schedule = Schedule(Window(), Window(), 2, Window(0, 0.5), 0.5)
    picture = AppearancePicture(conditioning(7), Path("noised reference", noise(1, GRID, 9)), masking, masking)
    editor = {
        "MasaCtrl": MutualSelfAttentionEditor(MutualSelfAttention(Window(0.5, 1)), "auto", masking, masking),
        "Plug-and-Play": PlugAndPlayEditor(PlugAndPlay(Window(), Window())),
        "Cross-Image Attention": CrossImageAttentionEditor(CrossImageAttention(schedule, 3.5, 1.67), picture),
        "Eye-for-an-Eye": EyeForAnEyeEditor(AppearanceTransfer(schedule, 3.5), picture),
    }[name]

    def run(model):
        model = model.clone()
        Twin(conditioning(5), [editor]).install(model)
        return sample(model, 2, grid=GRID, batch=2)

    assert_same(*on_both(offloaded(way, dtype, kind), run))


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15"]))
def test_regional_attention(offloaded, kind, way, dtype):
    """A mask for each picture, a longer prompt, ratios, and a region by a word."""
    masks = torch.rand(2, *GRID, generator=torch.Generator().manual_seed(0))
    entries = [*conditioning(5, 2, mask=masks), *conditioning(6)]

    def run(model):
        found = []
        for how in ({"ratios": "1"}, {"masking": AttentionMasking(DOG, Shaping("mean"))}):
            copy = model.clone()
            install_regions(copy, entries, base=0.2, **how)
            found.append(sample(copy, 2, grid=GRID, batch=2))
        return torch.cat(found)

    assert_same(*on_both(offloaded(way, dtype, kind), run))


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15"], 1))
def test_structured_diffusion(offloaded, kind, way, dtype):
    own = conditioning(1)[0][0]
    phrases = [PhraseAlone("red dog", (2, 3), conditioning(7)[0][0][0, 2:4])]

    def run(model):
        model = model.clone()
        install_structured_diffusion(model, "a red dog on a beach", Encoded((own,), {}), phrases)
        return sample(model, 2, grid=GRID, batch=2)

    assert_same(*on_both(offloaded(way, dtype, kind), run))


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15"]))
def test_placed_phrases(offloaded, kind, way, dtype):
    own, masks = conditioning(1)[0][0], Masks(torch.rand(2, *GRID, generator=torch.Generator().manual_seed(0)))
    alone = [PhraseAlone("red dog", (2, 3), conditioning(7)[0][0][0, 2:4])]
    phrases = PlacedPhrases("a red dog", Encoded((own,), {}), ("red dog", "beach"), ((2, 3), (6,)), masks, alone)

    def run(model):
        model = model.clone()
        install_dense_diffusion(model, phrases, DenseDiffusion(window=Window(0, 0.5), elsewhere="flattened"))
        return sample(model, 2, grid=GRID, batch=2)

    assert_same(*on_both(offloaded(way, dtype, kind), run))


PLACES = Boxes(((Box("dog", 0, 0, 0.5, 1),), (Box("beach", 0.5, 0, 1, 1),)))
GUIDED = {
    "Attend-and-Excite": (AttendAndExcite(), {"refinement": "0: 0.9", "refinements": 2}),
    "its prediction": (AttendAndExcite(), {"act_on": "prediction"}),
    "boxes": (BoxLoss(PLACES), {"repeats": "2", "until": 0.01, "stop_for_good": True}),
    "masks": (BoxLoss(Masks(PLACES.shares((16, 16))), "top values"), {"until": 0.01}),
    "BoxDiff": (BoxLoss(PLACES, "BoxDiff"), {"act_on": "prediction"}),
}


@pytest.mark.parametrize("name", GUIDED)
@pytest.mark.parametrize(
    ("way", "dtype", "kind"),
    [("manual cast", torch.float16, "SD15"), further(("low memory", torch.bfloat16, "SDXL"))],
)
def test_guidance(offloaded, way, dtype, kind, name):
    """The state is moved, with refinement, or the prediction is changed; the report is on the CPU."""
    loss, how = GUIDED[name]

    def run(model):
        copy = model.clone()
        guidance = Guidance(unit="relative", step_size=0.02, steps="0", **how)
        report = WordGuidance("Guidance", loss, SUBJECTS, guidance).install(copy)
        found = sample(copy, 2, grid=GRID, batch=2)
        (step,) = report.steps(found)
        assert step.changed.device.type == step.saliency.maps.device.type == "cpu"
        return found

    assert_same(*on_both(offloaded(way, dtype, kind), run))


@pytest.mark.parametrize(
    ("kind", "dtype", "options"),
    [
        ("SD20", torch.float16, ("positive", "structured")),
        further(("SDXL", torch.bfloat16, ("absolute", "exact"))),
        ("SDXL", torch.float16, ("absolute", "exact", "aggregated")),
    ],
)
def test_gradients_of_a_picture(offloaded, kind, dtype, options):
    latent = {"samples": noise(2, GRID)}

    def run(model):
        return gradient_saliency(model, conditioning(1), latent, SUBJECTS, 0.5, 3, *options).maps

    assert_same(*on_both(offloaded("low memory", dtype, kind), run))


def test_a_probe_of_areas_and_masks(offloaded):
    area = {"area": (4, 6, 1, 2), "strength": 0.7}
    mask = {"mask": torch.linspace(0, 1, 48).view(1, *GRID), "mask_strength": 0.5}

    def run(model):
        positive = conditioning(1) + conditioning(1, **area) + conditioning(1, **mask)
        return probe(model, positive, {"samples": noise(1, GRID)}, SUBJECTS, 0.5, 3).maps

    assert_same(*on_both(offloaded("low memory", torch.float16), run))


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15"], 1))
def test_features_of_pictures(offloaded, kind, way, dtype):
    def run(model):
        reader = FeatureReader(model, conditioning(1), ("middle.0", "output.1"), (0.2, 0.5), 2, 3)
        found = [each for levels in reader.read(noise(2, GRID), lambda *_: None) for each in levels]
        return [features for each in found for features in each.values()]

    for pair in zip(*on_both(offloaded(way, dtype, kind), run), strict=True):
        assert_same(*pair)


@pytest.mark.parametrize(("kind", "way", "dtype"), in_turn(["SD15", "SDXL"]))
def test_regions_of_pictures(offloaded, kind, way, dtype):
    """The attention is where the network runs, regions where the host keeps outputs."""
    latent, how = {"samples": noise(2, GRID)}, Segmenting(threshold=0.02, anchors=6, k_means=True)

    def run(model):
        return outputs(segment_pictures(model, conditioning(1), latent, how, SUBJECTS))

    found, expected = on_both(offloaded(way, dtype, kind), run)
    assert found[2] == expected[2]
    assert len(expected[1]) > 2
    for pair in zip(found[:2], expected[:2], strict=True):
        assert_same(*pair)


def test_taught_regions_are_found_on_the_device():
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 128), (128, 32), (32, 3))
    layers = tuple((torch.randn(4, *shape, generator=generator), torch.zeros(4, shape[1])) for shape in shapes)
    taught = Perceptrons(torch.zeros(5), torch.ones(5), layers)
    features = [torch.randn(shape, generator=generator) for shape in ((2, 3, 4), (3, 6, 8))]
    expected = predict(taught, features, (24, 32))
    with pretended_gpu():
        found = predict(taught.to(GPU), [each.to(GPU) for each in features], (24, 32))
        for pair in zip(found, expected, strict=True):
            assert_same(*pair)


def maps(device: torch.device, channels: bool = False) -> Saliency:
    """Saliency of two words that some node left on a device."""
    shape = (2, 1, 4, *GRID) if channels else (2, 1, *GRID)
    values = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    return Saliency(values, ("dog", "beach"), 1.0, None, GRID)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("combine", [*COMBINATIONS, "each"])
def test_masks_of_maps_that_are_on_the_device(rule, combine):
    separate = combine == "each"
    assert_same_masks(Shaping(rule, 0.5, "sum" if separate else combine, invert=True), separate)


@pytest.mark.parametrize("parts", KEPT_PARTS)
def test_parts_of_masks_of_maps_that_are_on_the_device(parts):
    places = [[8 * x + 1, 8 * y + 1] for y in range(GRID[0]) for x in range(GRID[1])]
    assert_same_masks(Shaping("mean", parts=parts, points=json.dumps(places), fill_holes=True), False)


def assert_same_masks(shaping: Shaping, separate: bool) -> None:
    cpu = torch.device("cpu")
    expected = [saliency_masks(maps(cpu, True), shaping, how, separate) for how in CHANNELS_TO_MASK]
    with pretended_gpu():
        for how, mask in zip(CHANNELS_TO_MASK, expected, strict=True):
            found = saliency_masks(maps(GPU, True), shaping, how, separate)
            assert found.device == GPU
            assert_same(found, mask)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_growing_maps_that_are_on_the_device(operation):
    def change(x):
        return OPERATIONS[operation](x, 3, 2)

    expected = apply_filter(maps(torch.device("cpu")), change).maps
    with pretended_gpu():
        assert_same(apply_filter(maps(GPU), change).maps, expected)


def test_pictures_that_are_on_the_device():
    """As with --gpu-only; the mask, by another node, is not there."""
    pictures = torch.rand(2, 1, 48, 64, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 48, 64)

    def run(device):
        image, reference = pictures.to(device)
        found = compare(image, reference, mask)
        saliency = maps(device)
        return (
            HeatMaps(saliency, image, "fire", 0.5, "shared").overlays(),
            raw_masks(saliency),
            torch.tensor(found.psnr + found.ssim),
        )

    expected = run(torch.device("cpu"))
    with pretended_gpu():
        for pair in zip(run(GPU), expected, strict=True):
            assert_same(*pair)


def test_that_mixing_devices_would_be_seen():
    with pretended_gpu():
        x = torch.ones(3).to(GPU)
        assert float((2 * x + torch.tensor(1.0)).sum()) == 9
        with pytest.raises(RuntimeError, match="cuda:0, cpu"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="different devices"):
            torch.equal(x, torch.ones(3))
        with pytest.raises(TypeError, match="cuda:0 to numpy"):
            x.numpy()
        assert x.cpu().numpy().sum() == 3
