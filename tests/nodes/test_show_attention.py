"""Show Attention on the toy checkpoint: the stock generation bit for bit, and the maps of its words."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch

PROMPT = "a (dog:1.3) on the beach"
READ = ("rules", "head noun")  # parser and words


def stock_latent(toy, model, latent, settings, text=PROMPT, negative="blurry"):
    """What CLIP Text Encode and KSampler give."""
    import nodes as host

    positive, negative = (host.CLIPTextEncode().encode(toy.clip, each)[0] for each in (text, negative))
    *sampler, denoise = settings
    return host.KSampler().sample(model, *sampler, positive, negative, latent, denoise)[0]


@pytest.fixture
def show(nodes):
    def run(toy, model, latent, settings, over_steps="mean", vae=None, text=PROMPT, negative="blurry", override=""):
        given = (model, toy.clip, latent, text, override, negative, *settings, *READ, over_steps)
        return nodes["ELShowAttention"].execute(*given, vae=vae)

    return run


def empty(*shape):
    return {"samples": torch.zeros(shape)}


NOISE = {"samples": torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))}
CASES = {
    "plain": (empty(1, 4, 16, 16), (3, 4, 3.0, "euler", "normal", 1.0)),
    "odd size, batch of 3": (empty(3, 4, 11, 17), (4, 3, 2.0, "dpmpp_2m", "karras", 1.0)),
    "from a picture": (NOISE, (5, 3, 4.0, "ddpm", "ddim_uniform", 0.6)),
    "no negative call": (empty(2, 4, 8, 8), (6, 2, 1.0, "uni_pc", "simple", 1.0)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_latent_is_that_of_the_stock_nodes_bit_for_bit(toy, show, case):
    latent, settings = CASES[case]
    expected = stock_latent(toy, toy.model, latent, settings)
    made, _, saliency = show(toy, toy.model, latent, settings).result
    assert torch.equal(made["samples"], expected["samples"])
    assert set(made) == set(expected)
    assert saliency.labels == ("dog", "beach")
    assert saliency.maps.shape == (2, *latent["samples"].shape[:1], *latent["samples"].shape[2:])
    torch.testing.assert_close(saliency.maps.sum((-2, -1)), torch.ones(2, len(latent["samples"])))


def test_it_is_the_stock_latent_in_bfloat16_too(comfy, toy, toy_checkpoint, show):
    options = {"dtype": torch.bfloat16}
    model, *_ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint), output_clip=False, model_options=options)
    latent, settings = CASES["plain"]
    expected = stock_latent(toy, model, latent, settings)
    made, *_ = show(toy, model, latent, settings).result
    assert torch.equal(made["samples"], expected["samples"])
    assert not torch.equal(made["samples"], stock_latent(toy, toy.model, latent, settings)["samples"])


def test_a_noise_mask_is_kept(toy, show):
    latent = {**NOISE, "noise_mask": (torch.arange(128) % 32 < 16).float().expand(1, 128, 128)}
    settings = (7, 3, 3.0, "euler", "normal", 1.0)
    expected = stock_latent(toy, toy.model, latent, settings)
    made, *_ = show(toy, toy.model, latent, settings).result
    assert torch.equal(made["samples"], expected["samples"])
    assert torch.equal(made["noise_mask"], latent["noise_mask"])


@pytest.mark.parametrize("over_steps", ["mean", "last", "each", "sum"])
def test_the_maps_are_those_of_capture_attention(nodes, toy, show, over_steps):
    import nodes as host

    latent, settings = CASES["plain"]
    _, _, saliency = show(toy, toy.model, latent, settings, over_steps).result
    subjects = nodes["ELParseSubjects"].execute(toy.clip, PROMPT, "rules", "", "head noun").result[0]
    capture = nodes["ELCaptureAttention"].execute(toy.model, subjects, 0.0, 1.0, "all", "nearest", "all tokens")
    model, attention = capture.result
    positive, negative = (host.CLIPTextEncode().encode(toy.clip, each)[0] for each in (PROMPT, "blurry"))
    *sampler, denoise = settings
    (made,) = host.KSampler().sample(model, *sampler, positive, negative, latent, denoise)
    (expected,) = nodes["ELAttentionSaliency"].execute(attention, made, "all", over_steps, False).result
    assert saliency.labels == expected.labels
    assert torch.equal(saliency.maps, expected.maps)


def test_the_picture_is_that_of_vae_decode_and_lies_under_the_maps(toy, show):
    import folder_paths
    import nodes as host

    latent, settings = CASES["plain"]
    result = show(toy, toy.model, latent, settings, vae=toy.vae)
    made, image, _ = result.result
    assert torch.equal(image, host.VAEDecode().decode(toy.vae, made)[0])
    (file,) = result.ui["el_inspector"]
    packed = (Path(folder_paths.get_temp_directory()) / file["file"]).read_bytes()
    header = json.loads(packed[4 : 4 + struct.unpack("<I", packed[:4])[0]])
    assert header["words"] == ["dog", "beach"]
    assert header["frames"] == ["", "step 0", "step 1", "step 2", "step 3"]
    assert len(header["pictures"]) == 1
    assert result.ui["el_chips"][0]["prompt"] == PROMPT
    assert len(result.ui["images"]) == 1


def test_without_a_vae_what_needs_the_picture_is_told_what_to_connect(toy, show):
    from comfy_execution.graph_utils import ExecutionBlocker

    _, image, _ = show(toy, toy.model, *CASES["plain"]).result
    assert isinstance(image, ExecutionBlocker)
    assert "connect the checkpoint's VAE" in image.message


def test_the_model_that_was_given_stays_as_it_was(toy, show):
    wrappers, options = dict(toy.model.wrappers), dict(toy.model.model_options)
    show(toy, toy.model, *CASES["plain"])
    assert dict(toy.model.wrappers) == wrappers
    assert dict(toy.model.model_options) == options


@pytest.mark.parametrize(
    ("text", "override", "message"), [("", "", "no subject"), ("a dog", "zebra", "'zebra' is not in the prompt")]
)
def test_a_prompt_without_words_is_an_error_that_says_so(toy, show, text, override, message):
    with pytest.raises(ValueError, match=message):
        show(toy, toy.model, *CASES["plain"], text=text, override=override)
