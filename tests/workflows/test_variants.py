"""Runs of which several variants are made: their user goes back to an earlier stop and answers it in another way."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tools.comfyui.errors import ComfyError
from tests.tools.thorough import further
from tests.workflows.answering import AnsweringBrowser, levels, png
from tests.workflows.sampled import Graph, capture, captured_maps, node
from tests.workflows.test_pauses import (
    attention,
    finished,
    graph,
    half,
    metadata,
    painting,
    pausing,
    plain,
    saving,
    text,
)

AGAIN = {"stop_at_end": "true"}


def stop(browser: AnsweringBrowser, kind: str, step: int) -> dict[str, Any]:
    """The next pause, which is this one."""
    pause = browser.pause()
    assert (pause["kind"], pause["step"]) == (kind, step)
    browser.answer(pause, "seen")
    return pause


def answer(browser: AnsweringBrowser, pause: dict[str, Any], action: str = "continue", *args: Any, **more: Any) -> None:
    """Give an answer that is taken."""
    given = browser.answer(pause, action, *args, **more)
    assert given.ok, given.text
    assert browser.closed() == action


def line(report: str) -> Any:
    """The answers in a report."""
    return json.loads(report.splitlines()[-1].removeprefix("answers: "))


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "lcm", further("dpm_adaptive")])
def test_each_variant_is_the_run_that_had_its_answers_from_the_start(browser, sampler):
    """Also after a variant that was left unfinished; and the recorded answers give the same batch without a user."""
    made = pausing("2, 4", sampler)
    run = browser.queue(made)
    first = stop(browser, "step", 2)
    assert (first["stops"], first["variants"], first["stop_at_end"]) == ([], [], False)
    assert "go back" not in first["actions"]
    answer(browser, first, values={"cfg": 9.0})
    second = stop(browser, "step", 4)
    assert [(each["kind"], each["step"]) for each in second["stops"]] == [("step", 2)]
    assert levels(second["stops"][0]["picture"]).shape == (8, 8, 3)
    answer(browser, second, "go back", to="0")
    anew = stop(browser, "step", 2)
    assert {name: anew[name] for name in ("values", "pictures", "stops")} == {
        name: first[name] for name in ("values", "pictures", "stops")
    }
    answer(browser, anew, values={"cfg": 5.0}, **AGAIN)
    answer(browser, stop(browser, "step", 4), values={"cfg": 1.5})
    end = stop(browser, "end", 6)
    assert (end["variants"][1:], [each["step"] for each in end["stops"]]) == ([], [2, 4])
    answer(browser, end, "go back", to="1")
    last = stop(browser, "step", 4)
    assert len(last["variants"]) == 1
    answer(browser, last, values={"cfg": 8.0})
    answer(browser, stop(browser, "end", 6), "go back", to="0")
    answer(browser, stop(browser, "step", 2))
    answer(browser, stop(browser, "step", 4), "end here")
    answer(browser, stop(browser, "end", 6))
    batch = finished(browser, run)
    assert len(batch) == 3
    report = text(browser, run)
    recorded = [
        [{"step": 2, "values": {"cfg": 5.0}}, {"step": 4, "values": {"cfg": 1.5}}],
        [{"step": 2, "values": {"cfg": 5.0}}, {"step": 4, "values": {"cfg": 8.0}}],
        [{"step": 4, "action": "end here"}],
    ]
    assert line(report) == recorded
    assert "variant 1 of 3\nthe user went back to the stop before step 2\n" in report
    assert "variant 2: the user went back to the stop before step 4 of variant 1" in report
    assert "variant 3: the user went back to the stop before step 2 of variant 2" in report
    for variant, answers in zip(batch.split(1), recorded, strict=True):
        alone = pausing("2, 4", sampler, answers=json.dumps(answers))
        assert torch.equal(plain(browser, alone), variant)
    made["paused"]["inputs"]["answers"] = report
    again = browser.queue(made, "")
    assert torch.equal(finished(browser, again), batch)
    assert line(text(browser, again)) == recorded


def both(**more: Any) -> Graph:
    """Masks that are painted over, and values that are changed, of a batch of three."""
    made = painting(attention(), 3, ask_at="each manipulated step", start_from="last painted", **more)
    made["paused"] = pausing("3", model=["patched", 0], **more)["paused"]
    made["sampler"]["inputs"]["model"] = ["paused", 0]
    made["report_2"] = node("ELMaskedLatentReport", report=["paused", 1], samples=["sampler", 0])
    made["text_2"] = node("PreviewAny", source=["report_2", 2])
    return made


def test_other_masks_are_painted_and_each_variant_of_a_batch_has_its_report(browser):
    made = saving(both())
    made["shown"] = node("PreviewImage", images=["pictures", 0])
    made["pictures"] = node("MaskToImage", mask=["report", 0])
    run = browser.queue(made, workflow={})
    answer(browser, stop(browser, "mask", 2), "continue", [half()] * 3, **AGAIN)
    answer(browser, stop(browser, "step", 3), values={"cfg": 4.0})
    answer(browser, stop(browser, "mask", 4))
    end = stop(browser, "end", 6)
    assert [(each["kind"], each["step"]) for each in end["stops"]] == [("mask", 2), ("step", 3), ("mask", 4)]
    assert len(end["pictures"]) == 3
    answer(browser, end, "go back", to="0")
    painted = stop(browser, "mask", 2)
    assert painted["start"] == painted["found"]
    answer(browser, painted, "continue", [half(2)] * 3)
    answer(browser, stop(browser, "step", 3), values={"cfg": 4.0})
    answer(browser, stop(browser, "mask", 4), "continue", [half(6)] * 3)
    answer(browser, stop(browser, "end", 6))
    batch = finished(browser, run)
    assert len(batch) == 6
    paint, pause = text(browser, run), "\n".join(browser.outputs(run)["text_2"]["text"])
    assert [[each["step"] for each in records] for records in line(paint)] == [[2], [2, 4]]
    assert line(pause) == [[{"step": 3, "values": {"cfg": 4.0}}]] * 2
    assert paint.count("inside") == 4
    assert len(browser.outputs(run)["shown"]["images"]) == 2 * 2 * 3  # variants, steps, pictures
    saved = {each["node"]: each["answers"] for each in metadata(browser, run)["explainable_latents"]["answers"]}
    assert saved == {"Paint Mask While Sampling": line(paint), "Pause Sampling": line(pause)}
    repeated = both()
    repeated["paint"]["inputs"]["answers"], repeated["paused"]["inputs"]["answers"] = paint, pause
    assert torch.equal(finished(browser, browser.queue(repeated, "")), batch)
    repeated["paused"]["inputs"]["answers"] = json.dumps(line(pause)[0])  # one answer for all variants
    assert torch.equal(finished(browser, browser.queue(repeated, "")), batch)
    for i, variant in enumerate(batch.split(3)):
        alone = both()
        for name, report in (("paint", paint), ("paused", pause)):
            alone[name]["inputs"]["answers"] = json.dumps(line(report)[i])
        assert torch.equal(plain(browser, alone), variant)


TWO = json.dumps([[], [{"step": 3, "values": {"cfg": 7.0}}]])


def captured(answers: str) -> Graph:
    """A run whose attention is captured, with recorded answers."""
    made = pausing(answers=answers, model=["capture", 0])
    return made | {
        "subjects": attention()["subjects"],
        "capture": capture(["subjects", 0]),
        "maps": captured_maps("all"),
        "overlay": node("ELSaliencyOverlay", saliency=["maps", 0], colormap="fire", opacity=0.5, scale="shared"),
        "shown": node("SaveImage", images=["overlay", 0], filename_prefix="variants"),
    }


def pixels(browser: AnsweringBrowser, run: str) -> np.ndarray:
    """All pictures of the maps that a run saved, one after the other."""
    files = browser.outputs(run)["shown"]["images"]
    return np.concatenate(
        [np.asarray(Image.open(io.BytesIO(browser.get(f"/view?filename={file['filename']}")))) for file in files]
    )


def test_latent_from_batch_gives_one_variant_with_its_maps_and_its_report(browser, client):
    made = captured(TWO)
    with pytest.raises(ComfyError, match=r"batch of several variants, made by 2 runs.*Latent From Batch"):
        client.run(made)
    made["one"] = node("LatentFromBatch", samples=["sampler", 0], batch_index=1, length=1)
    for name in ("maps", "report"):
        made[name]["inputs"]["samples"] = ["one", 0]
    picked = browser.queue(made, "")
    assert browser.done(picked) == "success"
    assert line(text(browser, picked)) == json.loads(TWO)[1]
    alone = browser.queue(captured(json.dumps(json.loads(TWO)[1])), "")
    assert browser.done(alone) == "success"
    shown = [pixels(browser, run) for run in (picked, alone)]
    assert np.array_equal(*shown)
    made["one"]["inputs"]["batch_index"] = 0
    other = browser.queue(made, "")
    assert browser.done(other) == "success"
    assert not np.array_equal(pixels(browser, other), shown[0])


def test_the_denoised_output_has_all_variants(browser):
    made = pausing(answers=TWO)
    common = {key: made["sampler"]["inputs"][key] for key in ("model", "cfg", "positive", "negative", "latent_image")}
    made["which"] = node("KSamplerSelect", sampler_name="euler_ancestral")
    made["all"] = node("BasicScheduler", model=["model", 0], scheduler="normal", steps=6, denoise=1.0)
    made["split"] = node("SplitSigmas", sigmas=["all", 0], step=5)
    made["sampler"] = node(
        "SamplerCustom", **common, add_noise=True, noise_seed=0, sampler=["which", 0], sigmas=["split", 0]
    )
    made["saved"]["inputs"]["samples"] = ["sampler", 1]
    batch = plain(browser, made)
    for i, answers in enumerate(json.loads(TWO)):
        made["paused"]["inputs"]["answers"] = json.dumps(answers)
        assert torch.equal(plain(browser, made)[0], batch[i])


def test_what_is_no_way_back_is_refused_and_the_pause_goes_on(browser):
    run = browser.queue(pausing("2, 4"))
    first = stop(browser, "step", 2)
    assert browser.answer(first, "go back", to="0").status_code == 422
    assert browser.answer(first, "continue", stop_at_end="yes").status_code == 422
    answer(browser, first, **AGAIN)
    second = stop(browser, "step", 4)
    for wrong in ({"to": "1"}, {"to": "-1"}, {"to": None}, {"to": "0", "values": {}}, {"to": "0", **AGAIN}):
        assert browser.answer(second, "go back", **wrong).status_code == 422
    assert browser.answer(second, "continue", to="0").status_code == 422
    answer(browser, second)
    end = stop(browser, "end", 6)
    assert "end here" not in end["actions"]
    assert browser.answer(end, "continue", **AGAIN).status_code == 422
    answer(browser, end)
    assert torch.equal(finished(browser, run), plain(browser, graph(["model", 0])))


def test_a_run_that_is_cancelled_at_its_end_leaves_nothing_for_the_next_one(browser):
    run = browser.queue(pausing("2"))
    answer(browser, stop(browser, "step", 2), values={"cfg": 7.0}, **AGAIN)
    answer(browser, stop(browser, "end", 6), "go back", to="0")
    answer(browser, stop(browser, "step", 2), "cancel")
    assert browser.done(run) == "interrupted"
    again = browser.queue(pausing("2"))
    answer(browser, stop(browser, "step", 2))
    assert torch.equal(finished(browser, again), plain(browser, graph(["model", 0])))


def test_when_the_time_is_over_at_the_end_the_finished_variants_are_the_result(browser):
    run = browser.queue(pausing("2", time_limit=2))
    answer(browser, stop(browser, "step", 2), values={"cfg": 7.0}, **AGAIN)
    answer(browser, stop(browser, "end", 6), "go back", to="0")
    answer(browser, stop(browser, "step", 2))
    stop(browser, "end", 6)
    assert browser.closed() == "timeout"
    batch = finished(browser, run)
    assert torch.equal(batch[1:], plain(browser, graph(["model", 0])))


def test_sixteen_variants_are_the_most(browser, client):
    run = browser.queue(pausing("1"))
    answer(browser, stop(browser, "step", 1), **AGAIN)
    for count in range(1, 16):
        end = stop(browser, "end", 6)
        assert (len(end["variants"]), end["full"]) == (count, False)
        answer(browser, end, "go back", to="0")
        answer(browser, stop(browser, "step", 1), "end here")
    end = stop(browser, "end", 6)
    assert (len(end["variants"]), end["full"], end["stops"]) == (16, True, [])
    answer(browser, end)
    assert len(finished(browser, run)) == 16
    with pytest.raises(ComfyError, match="17 variants, but a run has at most 16"):
        client.run(pausing(answers=json.dumps([[]] * 17)))


def test_two_nodes_have_answers_for_equally_many_variants(client):
    made = both(answers=TWO)
    made["paint"]["inputs"]["answers"] = "[[], [], []]"
    with pytest.raises(ComfyError, match="hold 2 variants, those of another node of this run 3"):
        client.run(made)


def test_the_sampler_with_masks_of_its_own_gives_the_masks_of_all_variants(browser):
    """And the maps that they were made from."""
    made = painting(
        attention(), answers=json.dumps([[], [{"step": 2, "masks": [base64.b64encode(png(half())).decode()]}]])
    )
    patch = made.pop("patched")["inputs"]
    made["sampler"]["class_type"] = "ELMaskedLatentKSampler"
    made["sampler"]["inputs"] |= {name: value for name, value in patch.items() if name != "model"}
    made["sampler"]["inputs"]["model"] = ["model", 0]
    del made["report"], made["text"]
    made["overlay"] = node("ELSaliencyOverlay", saliency=["sampler", 2], colormap="fire", opacity=0.5, scale="shared")
    made["pictures"] = node("MaskToImage", mask=["sampler", 1])
    for name in ("overlay", "pictures"):
        made[f"{name} shown"] = node("PreviewImage", images=[name, 0])
    run = browser.queue(made, "")
    assert len(finished(browser, run)) == 2
    shown = browser.outputs(run)
    assert len(shown["pictures shown"]["images"]) == 2 * 2  # variants, steps
    assert shown["overlay shown"]["images"]
