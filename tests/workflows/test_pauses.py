"""Runs that wait for their user, on the real server, with a client that answers over a real websocket."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import load

from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.server import ComfyServer
from tests.tools.thorough import THOROUGH
from tests.workflows.answering import CLOSED, HERE, PAUSE, AnsweringBrowser, levels
from tests.workflows.sampled import Graph, node, sampled

STEPS, AT = 6, 3
SIDE = 8  # places of the latent


def graph(model: list, sampler: str = "euler", batch: int = 1, **more: Any) -> Graph:
    """A picture that is sampled with `model`, and its latent, saved."""
    made = {**sampled(model, STEPS), "positive": node("CLIPTextEncode", clip=["model", 1], text="a dog on the beach")}
    made["sampler"]["inputs"] |= {"sampler_name": sampler, **more}
    made["latent"]["inputs"]["batch_size"] = batch
    return {**made, "saved": node("SaveLatent", samples=["sampler", 0], filename_prefix="pauses")}


def pausing(pause_at: str = str(AT), sampler: str = "euler", model: list | None = None, **more: Any) -> Graph:
    """The same with Pause Sampling."""
    waits = {"time_limit": 60, "when_over": "continue", "ask_again": "every run", "answers": "", **more}
    made = graph(["paused", 0], sampler)
    made["paused"] = node("ELPauseSampling", model=model or ["model", 0], pause_at=pause_at, **waits)
    made["report"] = node("ELMaskedLatentReport", report=["paused", 1], samples=["sampler", 0])
    made["text"] = node("PreviewAny", source=["report", 2])
    return made


def painting(masking: Graph, batch: int = 1, sampler: str = "euler", **more: Any) -> Graph:
    """Masked Latent (model patch) with the masking of the node `found`, which is painted over."""
    waits = {"time_limit": 60, "when_over": "continue", "ask_again": "every run", "answers": ""}
    how = {"ask_at": "first manipulated step", "listed_steps": "", "start_from": "the found mask"}
    paint = node("ELPaintMask", masking=["found", 0], **{**how, **waits, **more})
    return masked({**masking, "paint": paint}, ["paint", 0], batch, sampler)


def masked(masking: Graph, output: list, batch: int = 1, sampler: str = "euler") -> Graph:
    """Masked Latent (model patch) with the masking `output` of some node."""
    made = graph(["patched", 0], sampler, batch)
    made["drawn"] = node("KSampler", **{**made["sampler"]["inputs"], "model": ["model", 0], "seed": 1, "steps": 2})
    made["drawn"]["inputs"]["latent_image"] = ["one", 0]
    made["one"] = node("EmptyLatentImage", width=64, height=64, batch_size=1)
    made["patched"] = node(
        "ELMaskedLatentModel",
        model=["model", 0],
        reference=["drawn", 0],
        masking=output,
        manipulate_at="2, 4",
        inside="keep",
        outside="reference",
        inside_timestep=680,
        outside_timestep=80,
    )
    made["report"] = node("ELMaskedLatentReport", report=["patched", 1], samples=["sampler", 0])
    made["text"] = node("PreviewAny", source=["report", 2])
    return {**made, **masking}


def latent(browser: AnsweringBrowser, run: str) -> torch.Tensor:
    """The latent that a run saved."""
    (file,) = browser.outputs(run)["saved"]["latents"]
    return load(browser.get(f"/view?filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}"))[
        "latent_tensor"
    ]


def text(browser: AnsweringBrowser, run: str) -> str:
    """What the report says."""
    return "\n".join(browser.outputs(run)["text"]["text"])


def finished(browser: AnsweringBrowser, run: str) -> torch.Tensor:
    """The latent of a run that ends well."""
    assert browser.done(run) == "success"
    return latent(browser, run)


def saving(made: Graph) -> Graph:
    """The same with an image that is saved."""
    image = {"image": node("VAEDecode", samples=["sampler", 0], vae=["model", 2])}
    return {**made, **image, "png": node("SaveImage", images=["image", 0], filename_prefix="pauses")}


def metadata(browser: AnsweringBrowser, run: str) -> dict[str, Any]:
    """What stands in the first image that a run saved."""
    file, *_ = browser.outputs(run)["png"]["images"]
    data = browser.get(f"/view?filename={file['filename']}&subfolder={file['subfolder']}&type={file['type']}")
    return {name: json.loads(written) for name, written in Image.open(io.BytesIO(data)).text.items()}


def plain(browser: AnsweringBrowser, made: Graph) -> torch.Tensor:
    """The latent of a graph that waits for nobody."""
    return finished(browser, browser.queue(made))


def attention() -> Graph:
    """A mask that is found by attention to the subject."""
    words = {"parser": "rules", "override": "", "text": "a dog on the beach", "words": "head noun"}
    return {
        "subjects": node("ELParseSubjects", clip=["model", 1], **words),
        "found": node(
            "ELMaskFromAttention",
            subjects=["subjects", 0],
            role="subject",
            rule="mean",
            value=0.2,
            combine="union",
            invert=False,
            smooth_sigma=0.0,
            smooth_size=3,
            dilate_size=3,
            dilate_iterations=0,
            layers="all",
        ),
    }


def given(columns: int = SIDE // 2) -> Graph:
    """Mask from Image with the mask of `half`, made by ComfyUI's own nodes."""
    return {
        "under": node("SolidMask", value=64 / 255, width=SIDE, height=SIDE),
        "over": node("SolidMask", value=1.0, width=columns, height=SIDE),
        "made": node("MaskComposite", destination=["under", 0], source=["over", 0], x=0, y=0, operation="add"),
        "found": node("ELMaskFromImage", mask=["made", 0]),
    }


def half(columns: int = SIDE // 2) -> np.ndarray:
    """A mask with its first columns inside, the others a quarter."""
    mask = np.full((SIDE, SIDE), 64, np.uint8)
    mask[:, :columns] = 255
    return mask


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "lcm", "dpm_adaptive"])
def test_going_on_without_a_change_gives_the_picture_of_the_plain_run(browser, sampler):
    run = browser.queue(pausing("2, 4", sampler))
    for step in (2, 4):
        pause = browser.pause()
        assert (pause["kind"], pause["step"], pause["steps"], pause["run"]) == ("step", step, STEPS, run)
        assert (pause["found"], pause["size"], pause["then"]) == ([], None, "continue")
        assert [(each["name"], each["value"]) for each in pause["values"]] == [("cfg", 2.0)]
        (picture,) = pause["pictures"]
        assert levels(picture).shape == (SIDE, SIDE, 3)
        assert browser.answer(pause, "seen").json()["state"] == "shown"
        assert browser.answer(pause, "continue").json()["state"] == "answered"
        assert browser.closed() == "continue"
    paused = finished(browser, run)
    assert torch.equal(paused, plain(browser, graph(["model", 0], sampler)))
    assert text(browser, run).splitlines() == [f"step {step}: the user let the run go on" for step in (2, 4)]


@pytest.mark.parametrize("who", ["no client", "a client that is not there", "one that shows no pauses"])
def test_nobody_is_waited_for(browser, server, who):
    """Neither for a step nor for a mask; `browser` has announced itself, but it has not queued these runs."""
    with AnsweringBrowser(server) as silent:
        client = {"no client": "", "a client that is not there": "nobody"}.get(who, silent.client)
        stopped = silent.queue(pausing("1-5"), client)
        painted = silent.queue(painting(attention(), ask_at="each manipulated step"), client)
        assert torch.equal(finished(silent, stopped), plain(silent, graph(["model", 0])))
        found = attention()
        assert torch.equal(finished(silent, painted), plain(silent, masked(found, ["found", 0])))
        lines = text(silent, stopped).splitlines()
        assert lines == [f"step {n}: nobody was there to be asked, the run went on" for n in range(1, 6)]
        assert "step 4: nobody was there to be asked, the run went on" in text(silent, painted)
        heard = [kind for kind, _ in silent.received + browser.received]
        assert PAUSE not in heard
        assert CLOSED not in heard


def test_a_painted_mask_is_used_as_mask_from_image_uses_it(browser):
    made, expected = painting(attention()), masked(given(), ["found", 0])
    for each in (made, expected):
        each["patched"]["inputs"]["manipulate_at"] = "2"
    run = browser.queue(made)
    pause = browser.pause()
    assert (pause["kind"], pause["step"], pause["size"], pause["values"]) == ("mask", 2, [SIDE, SIDE], [])
    assert set(np.unique(levels(pause["found"][0]))) == {0, 255}
    assert pause["start"] == pause["found"]
    assert browser.get(f"/view?filename={pause['maps']['file']}&type=temp")[4:5] == b"{"
    assert browser.answer(pause, "continue", [half()]).ok
    assert torch.equal(finished(browser, run), plain(browser, expected))


def test_a_mask_that_is_not_changed_is_the_found_one_whether_it_is_sent_or_not(browser):
    """Also one with values that 8 bits do not hold."""
    soft = {
        "even": node("SolidMask", value=0.3, width=SIDE, height=SIDE),
        "found": node("ELMaskFromImage", mask=["even", 0]),
    }
    for masks in ([], [np.full((SIDE, SIDE), 76, np.uint8)]):
        run = browser.queue(painting(soft))
        pause = browser.pause()
        assert (levels(pause["found"][0]) == 76).all()
        assert browser.answer(pause, "continue", masks).ok
        assert torch.equal(finished(browser, run), plain(browser, masked(soft, ["found", 0])))


def test_what_was_painted_last_is_added_to_the_next_mask_and_taken_from_it(browser):
    made = painting(attention(), ask_at="each manipulated step", start_from="last painted")
    run = browser.queue(made)
    first = browser.pause()
    before = levels(first["found"][0])
    painted = before.copy()
    painted[0], painted[-1] = 255, 0
    assert browser.answer(first, "continue", [painted]).ok
    second = browser.pause()
    found, start = levels(second["found"][0]), levels(second["start"][0])
    expected = found.copy()
    expected[0][before[0] == 0] = 255
    expected[-1][before[-1] == 255] = 0
    assert np.array_equal(start, expected)
    assert not np.array_equal(start, found)
    assert browser.answer(second, "continue").ok
    by_hand = finished(browser, run)
    # asked only once, the same is done by itself
    once = browser.queue(painting(attention(), start_from="last painted"))
    assert browser.answer(browser.pause(), "continue", [painted]).ok
    assert torch.equal(finished(browser, once), by_hand)


def gradient() -> Graph:
    """A mask for each latent channel, found by Abs-Grad-SAM."""
    made = attention()
    how = {"channels": "each", "polarity": "absolute", "solver": "structured", "layer": "last"}
    inputs = {name: value for name, value in made["found"]["inputs"].items() if name != "layers"}
    return {**made, "found": node("ELMaskFromGradient", **inputs, **how)}


@pytest.mark.parametrize("found", [attention, gradient])
def test_each_picture_of_a_batch_has_its_own_mask(browser, found: Callable):
    """A mask per channel is shown as the mean, and what is painted holds for all channels."""
    made, without, with_it = (
        painting(found(), batch=3),
        masked(found(), ["found", 0], 3),
        masked(given(), ["found", 0], 3),
    )
    for each in (made, without, with_it):
        each["patched"]["inputs"]["manipulate_at"] = "2"
    run = browser.queue(made)
    pause = browser.pause()
    assert len(pause["found"]) == len(pause["pictures"]) == 3
    shown = [levels(mask) for mask in pause["found"]]
    of_channels = {round(255 * share / 4) for share in range(5)}
    assert set(np.unique(shown)) <= (of_channels if found is gradient else {0, 255})
    assert (len(np.unique(shown)) > 2) == (found is gradient)
    assert browser.answer(pause, "continue", shown[:2]).status_code == 422
    assert browser.answer(pause, "continue", [shown[0], half(), shown[2]]).ok
    painted, plainly, given_mask = finished(browser, run), plain(browser, without), plain(browser, with_it)
    assert torch.equal(painted[[0, 2]], plainly[[0, 2]])
    assert torch.equal(painted[1], given_mask[1])
    assert not torch.equal(painted[1], plainly[1])


def test_a_changed_guidance_acts_from_that_step_on(browser):
    """As one sampler for the first steps and another one for the others, up to the rounding of the latent between."""
    run = browser.queue(pausing())
    assert browser.answer(browser.pause(), "continue", values={"cfg": 5.0}).ok
    changed = finished(browser, run)
    parts = graph(["model", 0])
    common = {key: value for key, value in parts["sampler"]["inputs"].items() if key not in ("seed", "denoise")}
    more = {"noise_seed": 0, "return_with_leftover_noise": "enable"}
    parts["before"] = node(
        "KSamplerAdvanced", **{**common, **more}, add_noise="enable", start_at_step=0, end_at_step=AT
    )
    after = {**common, **more, "cfg": 5.0, "latent_image": ["before", 0], "add_noise": "disable"}
    parts["sampler"] = node("KSamplerAdvanced", **after, start_at_step=AT, end_at_step=STEPS)
    assert torch.allclose(changed, plain(browser, parts), rtol=0, atol=1e-4)
    assert not torch.allclose(changed, plain(browser, graph(["model", 0])), rtol=0, atol=1e-1)
    assert text(browser, run).endswith(f'answers: [{{"step": {AT}, "values": {{"cfg": 5.0}}}}]')


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m"])
def test_a_blend_is_the_averaged_prompt_from_that_noise_level_on(browser, sampler):
    """The oracle: ComfyUI's own average, and its own ranges of noise levels. heun calls the model twice in a step."""
    made = pausing(sampler=sampler, alternative=["other", 0])
    made["other"] = node("CLIPTextEncode", clip=["model", 1], text="a red car in a city")
    run = browser.queue(made)
    pause = browser.pause()
    assert [each["name"] for each in pause["values"]] == ["cfg", "blend"]
    assert browser.answer(pause, "continue", values={"blend": 0.75}).ok
    blended = finished(browser, run)
    ranges = graph(["model", 0], sampler)
    # the noise levels of 6 steps lie at 0, 20, 40, 60 ... percent of the schedule
    switch = {"start": (0.0, 0.5), "end": (0.5, 1.0)}
    for name, (start, end) in switch.items():
        source = ["positive", 0] if name == "start" else ["average", 0]
        ranges[name] = node("ConditioningSetTimestepRange", conditioning=source, start=start, end=end)
    ranges["other"] = made["other"]
    ranges["average"] = node(
        "ConditioningAverage",
        conditioning_to=["positive", 0],
        conditioning_from=["other", 0],
        conditioning_to_strength=0.25,
    )
    ranges["both"] = node("ConditioningCombine", conditioning_1=["start", 0], conditioning_2=["end", 0])
    ranges["sampler"]["inputs"]["positive"] = ["both", 0]
    assert torch.equal(blended, plain(browser, ranges))
    assert not torch.equal(blended, plain(browser, graph(["model", 0], sampler)))


def test_ending_here_makes_the_prediction_the_result(browser):
    run = browser.queue(pausing())
    assert browser.answer(browser.pause(), "end here").json()["state"] == "answered"
    assert browser.closed() == "end here"
    ended = finished(browser, run)
    custom = graph(["model", 0])
    common = {key: custom["sampler"]["inputs"][key] for key in ("model", "cfg", "positive", "negative", "latent_image")}
    custom["which"] = node("KSamplerSelect", sampler_name="euler")
    custom["all"] = node("BasicScheduler", model=["model", 0], scheduler="normal", steps=STEPS, denoise=1.0)
    custom["split"] = node("SplitSigmas", sigmas=["all", 0], step=AT)
    custom["custom"] = node(
        "SamplerCustom", **common, add_noise=True, noise_seed=0, sampler=["which", 0], sigmas=["split", 0]
    )
    custom["saved"]["inputs"]["samples"] = ["custom", 1]
    assert torch.equal(ended, plain(browser, {k: each for k, each in custom.items() if k != "sampler"}))


def test_a_run_is_repeated_without_a_user_from_its_report_or_its_image(browser):
    """Both nodes in one run: painted masks, changed values, an early end."""
    made = painting(attention(), ask_at="each manipulated step", start_from="last painted")
    extra = pausing("3, 5", model=["patched", 0], alternative=["other", 0])
    made |= {"paused": extra["paused"], "other": node("CLIPTextEncode", clip=["model", 1], text="a red car")}
    made["sampler"]["inputs"]["model"] = ["paused", 0]
    made["report_2"] = node("ELMaskedLatentReport", report=["paused", 1], samples=["sampler", 0])
    made["text_2"] = node("PreviewAny", source=["report_2", 2])
    workflow = {"id": "a workflow"}
    run = browser.queue(saving(made), workflow=workflow)
    answers = {
        2: {"masks": [half()]},
        3: {"values": {"cfg": 4.0, "blend": 0.5}},
        4: {"masks": [half(2)]},
        5: {"action": "end here"},
    }
    for step, answer in answers.items():
        pause = browser.pause()
        assert pause["step"] == step
        assert browser.answer(pause, **{"action": "continue", **answer}).ok
    by_hand = finished(browser, run)
    reports = {"paint": text(browser, run), "paused": "\n".join(browser.outputs(run)["text_2"]["text"])}
    written = metadata(browser, run)
    assert (written["workflow"], written["prompt"]["sampler"]) == (workflow, made["sampler"])
    found = {each["node"]: each for each in written["explainable_latents"]["answers"]}
    saved = {"paint": found["Paint Mask While Sampling"], "paused": found["Pause Sampling"]}
    for name, report in reports.items():
        made[name]["inputs"]["answers"] = report
        line = report.splitlines()[-1].removeprefix("answers: ")
        assert (saved[name]["sampler"], saved[name]["answers"]) == ("sampler", json.loads(line))
    again = browser.queue(made, "")
    assert torch.equal(finished(browser, again), by_hand)
    assert text(browser, again).splitlines()[-1] == reports["paint"].splitlines()[-1]
    for name in reports:
        made[name]["inputs"]["answers"] = json.dumps(saved[name]["answers"])
    assert torch.equal(finished(browser, browser.queue(made, "")), by_hand)


def test_an_image_has_the_answers_of_its_own_run_only(browser):
    """Where the node comes from the cache it cannot reach the new run's image; the image of no answer has none."""
    made = saving(pausing(ask_again="when inputs changed"))
    for seed, values in ((1, {"cfg": 3.0}), (2, {"cfg": 4.0}), (3, {"cfg": 2.0})):
        made["sampler"]["inputs"]["seed"] = seed
        made["paused"]["inputs"]["time_limit"] = 60 + seed // 3  # so that the third run's node is made anew
        run = browser.queue(made, workflow={})
        assert browser.answer(browser.pause(), "continue", values=values).ok
        assert browser.done(run) == "success"
        answers = metadata(browser, run).get("explainable_latents")
        node_of = {"sampler": "sampler", "node": "Pause Sampling", "answers": [{"step": AT, "values": values}]}
        assert answers == ({"answers": [node_of]} if seed == 1 else None)


def test_empty_answers_are_those_of_one_who_always_goes_on(browser):
    made = painting(attention(), answers="[]")
    made["paused"] = pausing("1-5", answers=" [] ", model=["patched", 0])["paused"]
    made["sampler"]["inputs"]["model"] = ["paused", 0]
    run = browser.queue(made)
    assert torch.equal(finished(browser, run), plain(browser, masked(attention(), ["found", 0])))
    assert PAUSE not in [kind for kind, _ in browser.received]


def cancelled_by_answer(browser, pause) -> None:
    assert browser.answer(pause, "cancel").json()["state"] == "cancelled"


def cancelled_by_interrupt(browser, pause) -> None:
    assert browser.post("/interrupt", json={}).ok


def cancelled_by_its_id(browser, pause) -> None:
    assert browser.post("/interrupt", json={"prompt_id": pause["run"]}).ok


def cancelled_as_a_job(browser, pause) -> None:
    answer = browser.post(f"/api/jobs/{pause['run']}/cancel")
    if answer.status_code in (404, 405):  # ComfyUI before 0.30 has no such route
        cancelled_by_interrupt(browser, pause)
    else:
        assert answer.json() == {"cancelled": True}


@pytest.mark.parametrize(
    "cancel", [cancelled_by_answer, cancelled_by_interrupt, cancelled_by_its_id, cancelled_as_a_job]
)
@pytest.mark.parametrize("kind", [pausing, lambda: painting(attention())])
def test_a_cancelled_run_ends_and_the_next_one_is_as_a_fresh_one(browser, cancel: Callable, kind: Callable):
    run = browser.queue(kind())
    pause = browser.pause()
    browser.answer(pause, "seen")
    cancel(browser, pause)
    assert browser.closed() == "cancel"
    assert browser.done(run) == "interrupted"
    assert browser.answer(pause, "continue").status_code == 409
    again = browser.queue(kind())
    assert browser.answer(browser.pause(), "continue").ok
    fresh = graph(["model", 0]) if kind is pausing else masked(attention(), ["found", 0])
    assert torch.equal(finished(browser, again), plain(browser, fresh))


def test_a_queue_that_is_cleared_leaves_the_run_that_waits_and_the_next_one_follows_it(browser):
    run = browser.queue(pausing())
    pause = browser.pause()
    waiting = browser.queue(graph(["model", 0], seed=5))
    assert browser.post("/queue", json={"clear": True}).ok
    later = browser.queue(graph(["model", 0], seed=6))
    assert browser.answer(pause, "continue").ok
    assert browser.done(run) == browser.done(later) == "success"
    assert json.loads(browser.get(f"/history/{waiting}")) == {}


def test_what_is_wrong_with_an_answer_is_said_and_the_pause_goes_on(browser, server):
    run = browser.queue(painting(attention()))
    pause = browser.pause()
    right, noise = half(), np.random.default_rng(0).integers(0, 255, (3000, 3000), np.uint8)

    def status(action: str = "continue", *args: Any, **other: Any) -> int:
        answer = browser.answer(pause, action, *args, **other)
        assert answer.json()["error"]
        return answer.status_code

    with AnsweringBrowser(server) as stranger:
        stranger.announce()
        assert stranger.answer(pause, "continue").status_code == 404  # even with the right token
        assert PAUSE not in [kind for kind, _ in stranger.received]
    assert browser.answer({**pause, "id": "0" * 32}, "continue").status_code == 404
    assert browser.answer({**pause, "id": "..%2f..%2fsecret"}, "continue").status_code == 404
    assert status(token="0" * 32) == status(token="") == 403
    assert status(revision="1") == 409
    for field in ("client", "token", "revision", "action"):
        assert status(**{field: None}) == 422
    for revision in ("-1", "one", "1.0", "9" * 100, "\u0663"):
        assert status(revision=revision) == 422
    assert status("burn") == status(filename="../../x.png") == status(values="{}") == 422
    assert status("seen", [right]) == status("end here") == 422
    for mask in (b"", b"no picture", right.T[:4], noise[:9, :9], np.zeros((SIDE, SIDE, 3), np.uint8)):
        assert status("continue", [mask]) == 422
    assert status("continue", [right.astype(np.uint16)]) == status("continue", [right, right]) == 422
    assert status("continue", [noise]) == 413
    assert status(client="x" * 20_000) == 413
    path = f"/explainable_latents/pauses/{pause['id']}"
    assert browser.post(path, json={"token": pause["token"]}).status_code == 422
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert browser.post(path, data=b"no parts", headers=broken).status_code == 422
    assert browser.post(path, data=b"--x\r\n\r\n", headers={"Content-Type": "multipart/form-data"}).status_code == 422
    for wrong in ({}, {"client_id": 3}, {"client_id": ""}):
        assert browser.post("/explainable_latents/pauses/here", json=wrong).status_code == 400
    assert browser.answer(pause, "continue").ok
    assert torch.equal(finished(browser, run), plain(browser, masked(attention(), ["found", 0])))


@THOROUGH  # a server of its own
def test_where_there_are_several_users_only_the_one_whose_browser_it_is_answers():
    with ComfyServer(arguments=["--multi-user"]) as server:
        names = [requests.post(f"{server.url}/users", json={"username": name}, timeout=60).json() for name in "ab"]
        with AnsweringBrowser(server, user=names[0]) as browser, AnsweringBrowser(server, user=names[1]) as stranger:
            browser.announce()
            run = browser.queue(pausing())
            pause = browser.pause()
            assert stranger.answer(pause, "continue", client=browser.client).status_code == 404
            assert stranger.post(HERE, json={"client_id": browser.client}).status_code == 403
            assert (
                stranger.post(HERE, json={"client_id": browser.client}, headers={"Comfy-User": "c"}).status_code == 403
            )
            assert browser.answer(pause, "continue").ok
            assert browser.done(run) == "success"
            assert stranger.post(HERE, json={"client_id": browser.client}).ok  # nothing waits for it any more


def test_a_page_that_is_loaded_again_gets_the_pause_back(browser):
    run = browser.queue(pausing())
    first = browser.pause()
    browser.answer(first, "seen")
    browser.disconnect()
    browser.connect()
    assert browser.announce() == {"connected": True, "pauses": 1}
    second = browser.pause()
    assert (second["id"], second["token"], second["revision"]) == (first["id"], first["token"], 1)
    assert {**second, "left": 0, "revision": 0} == {**first, "left": 0}
    assert browser.answer(first, "continue").status_code == 409
    assert browser.answer(second, "continue").ok
    assert torch.equal(finished(browser, run), plain(browser, graph(["model", 0])))


def test_a_second_tab_of_the_same_client_takes_over(browser, server):
    browser.queue(pausing())
    first = browser.pause()
    with AnsweringBrowser(server, browser.client) as tab:
        tab.announce()
        second = tab.pause()
        assert browser.answer(first, "continue").status_code == 409
        assert tab.answer(second, "continue").ok
        assert tab.closed() == "continue"
        browser.disconnect()  # the server forgets the client's newest websocket now, which is that of the tab
    browser.connect()


def test_who_has_gone_is_not_waited_for_in_the_next_run(browser, server):
    browser.disconnect()
    with AnsweringBrowser(server) as other:
        run = other.queue(pausing(), browser.client)
        assert other.done(run) == "success"
    browser.connect()  # as a page without our script, which has the same id after it was loaded again
    run = browser.queue(pausing("2"))
    assert browser.done(run) == "success"
    assert PAUSE not in [kind for kind, _ in browser.received]


@pytest.mark.parametrize(("then", "ended"), [("continue", "success"), ("cancel", "interrupted")])
@pytest.mark.parametrize("connected", [True, False])
def test_when_the_time_is_over_the_run_goes_on_or_stops(browser, then, ended, connected):
    run = browser.queue(pausing(time_limit=1, when_over=then))
    pause = browser.pause()
    assert (pause["seconds"], pause["then"]) == (1.0, then)
    assert 0 < pause["left"] <= 1
    if connected:
        assert browser.closed() == "timeout"
    else:
        browser.disconnect()
    assert browser.done(run) == ended
    if ended == "success":
        assert torch.equal(latent(browser, run), plain(browser, graph(["model", 0])))
    if not connected:
        browser.connect()


@pytest.mark.parametrize(("then", "ended"), [("continue", "success"), ("cancel", "interrupted")])
def test_who_closes_the_page_is_waited_for_as_long_as_the_grace_and_no_longer(browser, then, ended):
    """60 seconds in a user's run, half a second in this one."""
    run = browser.queue({"asks": node("TestAsks", grace=0.5, then=then, seed=len(then))})
    pause = browser.pause()
    assert (pause["grace"], pause["seconds"], pause["then"]) == (0.5, 60.0, then)
    browser.answer(pause, "seen")
    browser.disconnect()
    assert browser.done(run) == ended
    browser.connect()
    assert browser.announce()["pauses"] == 0
    if ended == "success":
        assert browser.outputs(run)["asks"]["text"] == ["left"]


def test_more_time_is_given_on_request(browser):
    browser.queue(pausing(time_limit=2))
    pause = browser.pause()
    while (left := browser.answer(pause, "seen").json()["left"]) > 1:
        assert left <= pause["left"]
    assert browser.answer(pause, "more time").json()["left"] > 1.5
    assert browser.answer(pause, "continue").ok


def test_a_share_of_a_run_that_is_too_short_is_no_pause(browser):
    made = pausing("10%, 100%")
    run = browser.queue(made)
    assert torch.equal(finished(browser, run), plain(browser, graph(["model", 0])))
    assert text(browser, run) == "no pause"


def left_over(browser: AnsweringBrowser, seed: int) -> dict[str, list[str]]:
    """What is alive of pauses on the server, by its node for that."""
    run = browser.queue({"left": node("TestLeftOver", seed=seed)})
    assert browser.done(run) == "success"
    return json.loads(browser.outputs(run)["left"]["text"][0])


def test_nothing_is_left_of_pauses_however_they_end(browser):
    before = left_over(browser, 1)
    ends = {"continue": "success", "end here": "success", "cancel": "interrupted"}
    for action, ended in ends.items():
        run = browser.queue(pausing("3, 4"))
        assert browser.answer(browser.pause(), "continue", values={"cfg": 3.0}).ok
        assert browser.answer(browser.pause(), action).ok
        assert browser.done(run) == ended
    for masks, ended in (([half()], "success"), (None, "interrupted")):
        run = browser.queue(painting(attention()))
        pause = browser.pause()
        assert (browser.post("/interrupt", json={}) if masks is None else browser.answer(pause, "continue", masks)).ok
        assert browser.done(run) == ended
    run = browser.queue(pausing(time_limit=1))
    browser.pause()
    browser.disconnect()
    assert browser.done(run) == "success"
    browser.connect()
    after = left_over(browser, 2)
    assert before["alive"] == after["alive"] == []
    assert after["threads"] == before["threads"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"pause_at": "0"}, "before step 0 there is no pause"),
        ({"pause_at": "6"}, "before step 6 there is no pause"),
        ({"answers": '[{"step": 2}]'}, r"step 2 is no step at which this run stops \(3\)"),
        ({"answers": '[{"step": 3, "values": {"blend": 0.5}}]'}, "this run has no 'blend' to change, only cfg"),
        ({"answers": '[{"step": 3, "values": {"cfg": 500}}]'}, "cfg 500 must lie between 0 and 100"),
    ],
)
def test_steps_and_answers_that_a_run_does_not_have_are_errors(client, inputs, message):
    with pytest.raises(ComfyError, match=message):
        client.run(pausing(**inputs))
