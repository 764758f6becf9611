"""The client against the real server: results, progress, and every way a run can go wrong, in words."""

from pathlib import Path

import pytest
import requests
from PIL import Image

from tests.tools.comfyui.client import ComfyClient, Progress
from tests.tools.comfyui.errors import ComfyError, Interrupted
from tests.tools.comfyui.server import ComfyServer


def slow(steps: int, seed: int) -> dict:
    """A graph of one node; another seed runs again."""
    return {"slow": {"class_type": "TestSlow", "inputs": {"steps": steps, "seed": seed}}}


def assert_cancelled(client: ComfyClient, seed: int) -> None:
    """The slow run with this seed neither runs nor waits, and did not reach its end."""
    assert client.pending() == ()
    history = requests.get(f"{client.url}/history", timeout=60).json().values()
    assert f"500 steps, seed {seed}" not in str([run["outputs"] for run in history])
    assert client.run(slow(1, seed=seed)).text("slow") == f"1 steps, seed {seed}"  # the server goes on working


def loader(name: str) -> dict:
    return {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": name}}


def test_pack_and_toy_model_load(server: ComfyServer, client: ComfyClient):
    log = server.log.read_text()
    assert "(IMPORT FAILED)" not in log  # of custom nodes; a ComfyUI may lack libraries for nodes of its own
    assert "custom_nodes/explainable-latents" in log
    assert [name for name in client.object_info() if name.startswith("EL")]
    assert client.object_info("TestSlow")["category"] == "tests"


def test_images_come_back_in_order(client: ComfyClient):
    red, blue = Image.new("RGB", (24, 16), (255, 0, 0)), Image.new("RGB", (24, 16), (0, 0, 255))
    graph = {
        "a": {"class_type": "LoadImage", "inputs": {"image": client.upload_image(red, "red.png")}},
        "b": {"class_type": "LoadImage", "inputs": {"image": client.upload_image(blue, "blue.png")}},
        "both": {"class_type": "ImageBatch", "inputs": {"image1": ["a", 0], "image2": ["b", 0]}},
        "saved": {"class_type": "SaveImage", "inputs": {"images": ["both", 0], "filename_prefix": "test/both"}},
        "inverted": {"class_type": "ImageInvert", "inputs": {"image": ["both", 0]}},
        "seen": {"class_type": "PreviewImage", "inputs": {"images": ["inverted", 0]}},
    }
    result = client.run(graph)
    assert [i.size for i in result.images("saved")] == [(24, 16), (24, 16)]
    assert [i.getpixel((0, 0)) for i in result.images("saved")] == [(255, 0, 0), (0, 0, 255)]
    assert [i.getpixel((0, 0)) for i in result.images("seen")] == [(0, 255, 255), (255, 255, 0)]
    with pytest.raises(KeyError, match=r"node both made no images.*saved"):
        result.images("both")


def test_upload_replaces_a_picture_of_the_same_name(client: ComfyClient, tmp_path: Path):
    for colour in ((1, 2, 3), (4, 5, 6)):
        file = tmp_path / "x.png"
        Image.new("RGB", (8, 8), colour).save(file)
        graph = {
            "load": {"class_type": "LoadImage", "inputs": {"image": client.upload_image(file, "same.png")}},
            "seen": {"class_type": "PreviewImage", "inputs": {"images": ["load", 0]}},
        }
        assert client.run(graph).images("seen")[0].getpixel((0, 0)) == colour


def test_progress_text_and_cache(client: ComfyClient):
    seen: list[Progress] = []
    result = client.run(slow(5, seed=1), seen.append)
    assert (seen[0], seen[-1]) == (Progress("slow", 1, 5), Progress("slow", 5, 5))  # ComfyUI may thin the rest out
    assert result.text("slow") == "5 steps, seed 1"
    assert result.cached == ()
    assert client.run(slow(5, seed=1)).cached == ("slow",)


def test_a_missing_checkpoint_is_named(client: ComfyClient):
    clip = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a dog"}}
    empty = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    sampler = {"seed": 0, "steps": 1, "cfg": 1, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    sampler |= {"model": ["1", 0], "positive": ["2", 0], "negative": ["2", 0], "latent_image": ["3", 0]}
    graph = {
        "1": loader("not_there.safetensors"),
        "2": clip,
        "3": empty,
        "4": {"class_type": "KSampler", "inputs": sampler},
        "5": {"class_type": "SaveLatent", "inputs": {"samples": ["4", 0], "filename_prefix": "x"}},
    }
    with pytest.raises(ComfyError, match=r"not_there\.safetensors") as caught:
        client.run(graph)
    assert (caught.value.node_id, caught.value.node_class) == ("1", "CheckpointLoaderSimple")
    assert "node 1 (CheckpointLoaderSimple): Value not in list: ckpt_name" in str(caught.value)


def test_a_graph_that_is_only_partly_valid_is_refused_and_does_not_run(client: ComfyClient):
    bad = {"class_type": "TestSlow", "inputs": {"steps": "many", "seed": 0}}
    with pytest.raises(ComfyError, match=r"node bad \(TestSlow\)") as caught:
        client.run(slow(500, seed=2) | {"bad": bad})
    assert caught.value.node_id == "bad"
    assert_cancelled(client, seed=2)


def test_an_unknown_node_is_refused(client: ComfyClient):
    with pytest.raises(ComfyError, match="NoSuchNode"):
        client.run({"1": {"class_type": "NoSuchNode", "inputs": {}}})


def test_a_failing_node_is_named_with_its_message(client: ComfyClient):
    with pytest.raises(ComfyError, match=r"node oops \(TestFail\) failed: ValueError: too many dogs") as caught:
        client.run({"oops": {"class_type": "TestFail", "inputs": {"message": "too many dogs"}}})
    assert (caught.value.node_id, caught.value.node_class) == ("oops", "TestFail")


def test_cancelling_ends_the_run(client: ComfyClient):
    with pytest.raises(Interrupted):
        client.run(slow(500, seed=4), lambda progress: client.interrupt())
    assert_cancelled(client, seed=4)


def test_ctrl_c_cancels_the_run(client: ComfyClient):
    def press(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run(slow(500, seed=6), press)
    assert_cancelled(client, seed=6)


def test_a_timeout_cancels_the_run(client: ComfyClient):
    with pytest.raises(TimeoutError):
        client.run(slow(500, seed=8), timeout=0.5)
    assert_cancelled(client, seed=8)


def test_a_run_waits_for_its_own_end_not_for_that_of_an_earlier_one(client: ComfyClient):
    client.queue({"first": slow(5, seed=10)["slow"]})
    seen: list[str] = []
    result = client.run({"second": slow(5, seed=11)["slow"]}, lambda progress: seen.append(progress.node_id))
    assert result.text("second") == "5 steps, seed 11"
    assert set(seen) == {"second"}


def test_no_server_is_an_error_with_its_address():
    with ComfyClient("http://127.0.0.1:9") as nobody, pytest.raises(ComfyError, match="no connection to ComfyUI at"):
        nobody.run(slow(1, seed=0))
