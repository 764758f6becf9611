"""The toy checkpoint in the real ComfyUI's own loaders."""

import pytest
import torch
from safetensors import safe_open

from tests.tools.toy_world.judge import held_out_quality, judge_images, load_judge
from tests.tools.toy_world.modules import TextEncoder, make_unet
from tests.tools.toy_world.pictures import random_picture
from tests.tools.toy_world.vocabulary import Vocabulary, first_world


@pytest.fixture(scope="module")
def parts(comfy, toy_checkpoint):
    """MODEL, CLIP, VAE from the stock loader node."""
    import folder_paths
    import nodes

    assert str(toy_checkpoint.name) in folder_paths.get_filename_list("checkpoints")
    return nodes.CheckpointLoaderSimple().load_checkpoint(toy_checkpoint.name)


def test_the_file_is_small_half_precision_and_says_its_license(toy_checkpoint):
    assert toy_checkpoint.stat().st_size <= 16 * 2**20
    with safe_open(toy_checkpoint, "pt") as file:
        assert file.metadata()["license"] == "GPL-3.0"
        dtypes = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118  not a dict
    other = {key for key, dtype in dtypes.items() if dtype != torch.float16}
    assert other == {"cond_stage_model.token_ids", "first_stage_model.vae_scale", "first_stage_model.vae_shift"}


def test_the_stock_loader_gives_an_epsilon_model_of_the_trained_unet(comfy, parts, toy_checkpoint):
    model, _, _ = parts
    assert type(model.model).__name__ == "BaseModel"
    assert model.model.model_type.name == "EPS"
    trained = make_unet(torch.device("cpu")).state_dict()
    loaded = model.model.diffusion_model.state_dict()
    assert {k: v.shape for k, v in trained.items()} == {k: v.shape for k, v in loaded.items()}


def test_the_hosts_text_encoder_equals_the_one_that_was_trained(comfy, parts, toy_checkpoint):
    from tests.tools.comfyui.install import installed

    vocabulary = Vocabulary(installed().tree, first_world())
    twin = TextEncoder(vocabulary.rows)
    with safe_open(toy_checkpoint, "pt") as file:
        names = {f"cond_stage_model.transformer.{host}": own for own, host in _names(twin).items()}
        twin.load_state_dict({own: file.get_tensor(key).float() for key, own in names.items()})
    prompts = ["a dog on the beach", "", "red car at the city", "a zebra on the beach"]
    with torch.no_grad():
        rows, keep, _ = vocabulary.encode(prompts)
        expected = twin(rows, keep)
    for prompt, vectors in zip(prompts, expected, strict=True):
        conditioning = parts[1].encode_from_tokens_scheduled(parts[1].tokenize(prompt))[0][0]
        # the host keeps fp16 weights and computes in float32
        torch.testing.assert_close(conditioning[0], vectors, atol=2e-3, rtol=0)


def _names(twin: TextEncoder) -> dict[str, str]:
    """Own name -> host name of every weight of the twin, found by value."""
    marked = {own: torch.full_like(value, i + 1.0) for i, (own, value) in enumerate(twin.state_dict().items())}
    twin.load_state_dict(marked)
    by_value = {float(v.flatten()[0]): host for host, v in twin.host_state_dict().items() if "projection" not in host}
    return {own: by_value[float(value.flatten()[0])] for own, value in marked.items()}


@torch.inference_mode()
def test_pictures_survive_the_autoencoder(parts):
    images = torch.stack([torch.from_numpy(random_picture(1_000_000 + i).image.copy()) for i in range(8)]).float() / 255
    errors = ((parts[2].decode(parts[2].encode(images)) - images) ** 2).mean((1, 2, 3))
    assert (-10 * errors.log10()).mean() >= 25.0


@torch.inference_mode()
def test_latents_have_about_the_scale_the_schedule_was_made_for(parts):
    images = (
        torch.stack([torch.from_numpy(random_picture(1_000_000 + i).image.copy()) for i in range(32)]).float() / 255
    )
    latent = parts[0].model.process_latent_in(parts[2].encode(images))
    assert abs(float(latent.mean())) < 0.2
    assert 0.8 < float(latent.std()) < 1.2


def test_the_judge_knows_the_toy_world():
    quality = held_out_quality(load_judge(), 256)
    assert quality["subject accuracy"] >= 0.98
    assert quality["scene accuracy"] >= 0.98
    assert quality["mask IoU"] >= 0.9


def test_a_prompt_is_drawn(parts):
    import nodes

    model, clip, vae = parts
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(t)) for t in ("a bus on the desert", ""))
    start = {"samples": torch.zeros(1, 4, 16, 16)}
    (latent,) = nodes.common_ksampler(model, 1, 25, 3.0, "euler", "normal", positive, negative, start)
    picture = vae.decode(latent["samples"]).permute(0, 3, 1, 2).clamp(0, 1)
    subjects, scenes, _ = judge_images(load_judge(), picture)
    assert (subjects, scenes) == (["bus"], ["desert"])
