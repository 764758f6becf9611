"""A transformer of the toy's kind with random weights in the real ComfyUI's own loaders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.tokens import tokenize
from tests.tools.comfyui.install import installed
from tests.tools.toy_world.continued import frozen_autoencoder, part, taught_text
from tests.tools.toy_world.export import checkpoint
from tests.tools.toy_world.loaded import Toy
from tests.tools.toy_world.modules import make_transformer
from tests.tools.toy_world.quality_attention import layer_maps, one_call, single_pictures
from tests.tools.toy_world.vocabulary import Vocabulary, second_world

PROMPT = "a small cat on the left and a blue bus on the road"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vocabulary(comfy) -> Vocabulary:
    return Vocabulary(installed().tree, second_world())


@pytest.fixture(scope="module")
def trained(vocabulary, toy_checkpoint):
    """A network and a text encoder with the weights that they have after they went through the file."""
    torch.manual_seed(4)
    network, text = make_transformer(CPU), taught_text(load_file(toy_checkpoint), vocabulary)
    with torch.no_grad():
        for parameter in (*network.parameters(), *text.parameters()):
            parameter.add_(0.02 * torch.randn_like(parameter)).copy_(parameter.half())
    return network.eval(), text.eval()


@pytest.fixture(scope="module")
def file(trained, vocabulary, toy_checkpoint) -> Iterator[Path]:
    """The checkpoint, in a folder of the host's."""
    import folder_paths

    network, text = trained
    vae = part(load_file(toy_checkpoint), "first_stage_model.")
    path = Path(folder_paths.get_folder_paths("checkpoints")[0]) / "random_transformer.safetensors"
    save_file(checkpoint(network.state_dict(), text.state_dict(), vae, vocabulary), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def parts(comfy, file):
    """MODEL, CLIP, VAE from the stock loader node."""
    import nodes

    return nodes.CheckpointLoaderSimple().load_checkpoint(file.name)


def test_the_network_is_small(file):
    with safe_open(file, "pt") as tensors:
        sizes = [tensors.get_slice(k).get_shape() for k in tensors.keys() if k.startswith("model.diffusion_model.")]  # noqa: SIM118
    numbers = sum(torch.Size(size).numel() for size in sizes)
    assert 2_000_000 < numbers < 3_000_000
    assert 2 * numbers <= 8 * 2**20


def test_the_stock_loader_gives_a_flow_model_of_the_qwen_image_class(parts):
    model = parts[0].model
    assert type(model).__name__ == "QwenImage"
    assert type(model.diffusion_model).__name__ == "QwenImageTransformer2DModel"
    assert (model.latent_format.latent_channels, model.latent_format.latent_dimensions) == (4, 3)
    sampling = model.model_sampling
    assert float(sampling.sigma_max) == 1.0
    torch.testing.assert_close(sampling.sigma(torch.tensor([0.25, 0.5])), torch.tensor([0.25, 0.5]))


def test_the_hosts_own_qwen_image_models_are_still_recognised(comfy):
    import comfy.model_detection
    import comfy.supported_models

    shape = {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60}
    assert type(comfy.model_detection.model_config_from_unet_config(shape)) is comfy.supported_models.QwenImage


@torch.inference_mode()
def test_the_loaded_network_says_what_the_trained_one_says(parts, trained):
    """Heads and rotary axes are not in the weights: only the values tell that they are the trained ones."""
    generator = torch.Generator().manual_seed(5)
    x, context = torch.randn(2, 4, 1, 16, 16, generator=generator), torch.randn(2, 9, 64, generator=generator)
    t = torch.tensor([0.3, 0.8])
    expected = trained[0](x, t, context)
    loaded = parts[0].model.diffusion_model(x, t, context)
    assert expected.std() > 0.1
    torch.testing.assert_close(loaded, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_prompt_has_as_many_vectors_as_tokens_and_they_are_the_trained_ones(parts, trained, vocabulary):
    clip = parts[1]
    for prompt in (PROMPT, "", "a zebra on the beach"):
        rows, keep, _ = vocabulary.encode([prompt])
        vectors = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0]
        count = int(keep.sum())
        assert vectors.shape == (1, count, 64)
        # the host keeps fp16 weights and computes in float32
        torch.testing.assert_close(vectors, trained[1](rows, keep)[:, :count], atol=2e-3, rtol=0)


def test_the_words_of_a_prompt_are_found_among_its_tokens(parts):
    subjects = parse(PROMPT, tokenize(parts[1], PROMPT), "cat, bus")
    assert subjects.with_role("subject").labels == ("cat", "bus")
    assert subjects.with_role("subject").positions() == ((3,), (10,))


@torch.inference_mode()
def test_the_stock_sampler_and_the_toys_autoencoder_make_pictures_of_it(parts, trained, toy_checkpoint):
    """As two steps from noise along the flow that the trained network says, and the toy's decoder, do."""
    import nodes

    model, clip, vae = parts
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    start = {"samples": torch.zeros(2, 4, 16, 16)}
    (latent,) = nodes.common_ksampler(model, 1, 2, 3.0, "euler", "simple", positive, negative, start)
    x = torch.randn(2, 4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    for t, after in ((1.0, 0.5), (0.5, 0.0)):
        with_prompt, without = (
            trained[0](x, torch.full((2,), t), text[0][0].expand(2, -1, -1)) for text in (positive, negative)
        )
        x = x + (after - t) * (without + 3.0 * (with_prompt - without))
    x = model.model.process_latent_out(x)
    assert latent["samples"].shape == (2, 4, 1, 16, 16)
    # float32 in both, in another order
    torch.testing.assert_close(latent["samples"], x, atol=1e-4, rtol=1e-4)
    decoder = frozen_autoencoder(load_file(toy_checkpoint), CPU)
    pictures = decoder.taesd_decoder((x[:, :, 0] - decoder.vae_shift) * decoder.vae_scale).clamp(0, 1).movedim(1, -1)
    assert pictures.std() > 0.01
    torch.testing.assert_close(vae.decode(latent["samples"]), pictures, atol=1e-3, rtol=0)


@torch.inference_mode()
def test_its_words_are_captured_while_it_samples(parts):
    """From the prompt's text to a map of each word, with nodes as users have them; the picture stays the same."""
    import nodes

    model, clip, _ = parts
    subjects = parse(PROMPT, tokenize(clip, PROMPT), "cat, bus")
    observed = model.clone()
    capture = observe(observed, subjects)
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    start = {"samples": torch.zeros(2, 4, 16, 16)}
    how = 1, 2, 3.0, "euler", "simple", positive, negative, start
    (latent,), (plain,) = nodes.common_ksampler(observed, *how), nodes.common_ksampler(model, *how)
    assert torch.equal(latent["samples"], plain["samples"])
    saliency = capture.saliency(latent["samples"], "all", "mean")
    assert saliency.labels == ("cat", "bus", *subjects.labels[2:])
    assert saliency.maps.shape == (len(subjects.labels), 2, 16, 16)
    torch.testing.assert_close(saliency.maps.sum((-2, -1)), torch.ones(len(subjects.labels), 2))
    assert capture.runs.kept[-1].notes == []
    layers = capture.saliency(latent["samples"], "all", "mean", each_layer=True)
    assert [label for label in layers.labels if "cat" in label] == ["cat, double.2 (8x8)", "cat, double.3 (8x8)"]


@torch.inference_mode()
def test_its_measured_maps_are_the_hosts_own_attention(file):
    """The host's attention kernel with one-hot values gives the probabilities themselves."""
    toy, (picture,) = Toy(file), single_pictures(1)
    maps = layer_maps(toy, picture, 0.5)
    kernel: dict[int, torch.Tensor] = {}

    def with_one_hot_values(attention, q, k, v, heads, *args, **kwargs):
        one_hot = torch.eye(*k.shape[2:]).expand_as(k)  # the first 32 keys, which hold all text
        probabilities = attention(q, k, one_hot, heads, *args, **kwargs).unflatten(-1, (heads, -1)).sum(2)
        kernel[kwargs["transformer_options"]["block_index"]] = probabilities[:, -64:]
        return attention(q, k, v, heads, *args, **kwargs)

    patched = toy.model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = with_one_hot_values
    one_call(patched, toy, picture, 0.5)
    assert list(kernel) == [0, 1, 2, 3]
    assert list(maps) == ["all", "block 0", "block 1", "block 2", "block 3"]
    of_word = [kernel[i][0, :, 1].view(8, 8) for i in range(4)]  # "bus on ...": the token behind begin-of-text
    for name, expected in zip(maps, (sum(of_word), *of_word), strict=True):
        spread = expected.repeat_interleave(2, 0).repeat_interleave(2, 1)
        torch.testing.assert_close(maps[name][0], spread / spread.sum(), atol=1e-6, rtol=1e-4)


@torch.inference_mode()
def test_show_attention_gives_the_stock_latent_and_maps_on_its_grid(parts):
    import nodes

    from explainable_latents.nodes.host.shown_generation import generate_and_show

    model, clip, vae = parts
    positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (PROMPT, ""))
    start, settings = {"samples": torch.zeros(2, 4, 16, 16)}, (1, 2, 3.0, "euler", "simple")
    (expected,) = nodes.common_ksampler(model, *settings, positive, negative, start)
    prompt = PROMPT, "cat, bus", "rules", "head noun", "main subject"
    made = generate_and_show(model, clip, vae, prompt, "", (*settings, start, 1.0), "mean")
    assert torch.equal(made.latent["samples"], expected["samples"])
    assert torch.equal(made.image, nodes.VAEDecode().decode(vae, expected)[0])
    assert made.saliency.labels[:2] == ("cat", "bus")
    assert made.saliency.maps.shape[1:] == (2, 16, 16)
    total = made.saliency.maps.sum((-2, -1))
    torch.testing.assert_close(total, torch.ones_like(total))
