"""What the browser is sent at a manipulated step, and that nothing is made where none listens."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image


def pixels(url: str) -> np.ndarray:
    kind, data = url.split(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_mask_and_heat_map_are_sent_with_the_step(sent):
    from explainable_latents.nodes.host.ui.live_masks import STEP, show_step

    mask = torch.zeros(1, 6, 9)
    mask[0, 1:3, 2:8] = 1
    maps = torch.rand(2, 1, 6, 9)
    show_step(5, 35, mask, maps)
    ((event, data),) = sent()
    assert event == STEP
    assert (data["node"], data["run"], data["step"], data["steps"]) == ("7:3", "a run", 5, 35)
    assert data["inside"] == pytest.approx(12 / 54)
    assert np.array_equal(pixels(data["mask"]), (mask[0, ..., None].expand(6, 9, 3) * 255).byte().numpy())
    heat, total = pixels(data["heat"]).astype(int).sum(-1), maps.sum(0)[0]
    assert heat.argmax() == int(total.argmax())
    assert heat.argmin() == int(total.argmin())


def test_a_mask_per_channel_is_shown_as_their_mean_and_a_batch_side_by_side(sent):
    from explainable_latents.nodes.host.ui.live_masks import show_step

    mask = torch.zeros(6, 4, 5, 5, dtype=torch.float16)
    mask[:, :2] = 1
    show_step(0, 3, mask, torch.rand(1, 6, 4, 5, 5))
    show_step(1, 3, mask, None)
    (_, first), (_, second) = sent()
    assert pixels(first["mask"]).shape == pixels(first["heat"]).shape == (5, 20, 3)  # four of the six
    assert set(np.unique(pixels(first["mask"]))) == {128}
    assert second["heat"] is None


def test_a_map_that_is_the_same_everywhere_has_one_colour(sent):
    from explainable_latents.nodes.host.ui.live_masks import show_step

    show_step(0, 1, torch.ones(1, 4, 4), torch.full((1, 1, 4, 4), 0.25))
    ((_, data),) = sent()
    assert len(np.unique(pixels(data["heat"]).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize(
    ("extra", "workflow"),
    [
        ({"extra_pnginfo": {"workflow": {"id": "a workflow"}}}, "a workflow"),
        ({"extra_pnginfo": {"workflow": "anything"}}, None),
        ({}, None),
    ],
)
def test_the_browser_is_told_which_workflow_the_masks_are_of(sent, extra, workflow):
    from explainable_latents.nodes.host.ui.live_masks import show_step

    queue = sent.server.prompt_queue
    queue.put((0, "another run", {}, {"extra_pnginfo": {"workflow": {"id": "another workflow"}}}, []))
    queue.put((1, "a run", {}, extra, []))
    for _ in range(2):
        queue.get()
    sent.drop()  # every browser hears of the queue
    show_step(0, 1, torch.ones(1, 4, 4), None)
    ((_, data),) = sent()
    assert data["workflow"] == workflow


@pytest.mark.parametrize("client", [None, "a program that has gone"])
def test_without_a_browser_nothing_is_computed(sent, client):
    from explainable_latents.nodes.host.ui.live_masks import show_step

    sent.server.client_id = client
    show_step(0, 1, "no mask", "no maps")  # would fail if they were looked at
    assert sent() == []


def test_without_a_server_nothing_is_computed(comfy):
    from explainable_latents.nodes.host.ui.live_masks import show_step

    assert show_step(0, 1, "no mask", "no maps") is None
