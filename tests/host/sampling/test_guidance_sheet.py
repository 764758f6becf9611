"""The plot of a guided run: what is drawn stands where the report's numbers are."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.methods.word_places import Boxes

LABELS, GRID = ("dog", "beach"), (8, 12)
PLACES = Boxes(((Box("dog", 0, 0, 0.5, 0.5),), (Box("beach", 0.25, 0.5, 1, 1),)))


@pytest.fixture(scope="module", autouse=True)
def host(comfy):
    """Modules of the pack below import ComfyUI's."""


def guided_step(number: int, losses, after=None, updates=1, **more):
    """A step of two words with losses [S,B]."""
    from explainable_latents.nodes.host.sampling.guidance_report import GuidedStep

    before = torch.tensor(losses)
    batch = before.shape[1]
    maps = torch.linspace(0, 1, 2 * batch * 96).view(2, batch, *GRID)
    return GuidedStep(
        number,
        10.0 - number,
        LABELS,
        before,
        before if after is None else torch.tensor(after),
        before.amax(0),
        changed=torch.full((batch,), 0.1),
        updates=torch.full((batch,), updates),
        unknown=torch.zeros(batch, dtype=torch.bool),
        enough=torch.zeros(batch, dtype=torch.bool),
        saliency=Saliency(maps, LABELS, 1.0, number, GRID),
        **more,
    )


def skipped(number: int):
    from explainable_latents.nodes.host.sampling.guidance_report import GuidedStep

    return GuidedStep(number, 10.0 - number, skipped="not active")


def plot(*steps):
    from explainable_latents.nodes.host.sampling.loss_plot import LossPlot

    return LossPlot(steps)


def pixel(page, place) -> tuple[int, int, int]:
    return page.getpixel((round(place[0]), round(place[1])))


RUN = ([[0.9], [0.4]], [[0.7], [0.5]], [[0.3], [0.1]])


def test_each_loss_is_drawn_in_its_words_colour_at_its_step():
    from explainable_latents.nodes.host.sampling.loss_plot import PAPER, word_colours

    made = plot(*(guided_step(number, losses) for number, losses in enumerate(RUN, 2)))
    page, frame, colours = made.draw(0), made.frame(), word_colours(2)
    # by hand: half a step free on either side of steps 2..4, losses from 0 to 1 with a tick at each half
    assert (frame.across.low, frame.across.high, frame.up.ticks) == (1.5, 4.5, (0.0, 0.5, 1.0))
    for i, losses in enumerate(RUN):
        for word in range(2):
            x = frame.left + (i + 0.5) / 3 * (frame.right - frame.left)
            y = frame.bottom - losses[word][0] * (frame.bottom - frame.top)
            assert pixel(page, (x, y)) == colours[word]
    # half-way between two steps the line is at the mean of their losses, and nothing is drawn far from a line
    assert pixel(page, frame.place(2.5, 0.8)) == colours[0]
    assert pixel(page, frame.place(3.5, 0.3)) == colours[1]
    assert pixel(page, frame.place(4.25, 0.75)) == PAPER


def test_a_step_that_moved_nothing_is_a_ring_and_one_of_several_moves_has_a_stem_to_the_last_loss():
    from explainable_latents.nodes.host.sampling.loss_plot import PAPER, word_colours

    still = guided_step(0, [[0.9], [0.4]], updates=0)
    often = guided_step(1, [[0.9], [0.4]], [[0.6], [0.1]], updates=5)
    made = plot(still, often)
    page, frame, colours = made.draw(0), made.frame(), word_colours(2)
    assert pixel(page, frame.place(0, 0.9)) == PAPER
    for word, (before, after) in enumerate(((0.9, 0.6), (0.4, 0.1))):
        assert pixel(page, frame.place(1, before)) == colours[word]
        assert pixel(page, frame.place(1, after)) == colours[word]
        assert pixel(page, frame.place(1, (before + after) / 2)) == colours[word]


def test_limits_cross_their_step_and_skipped_steps_are_crosses_at_the_foot():
    from explainable_latents.nodes.host.sampling.loss_plot import INK, LIMIT, PAPER

    free = guided_step(0, [[0.9], [0.4]])
    made = plot(free, guided_step(1, [[0.8], [0.4]], limits=(0.2,)), skipped(2))
    page, frame = made.draw(0), made.frame()
    for side in (0.6, 1.0, 1.4):
        assert pixel(page, frame.place(side, 0.2)) == INK
    assert pixel(page, frame.place(0.3, 0.2)) == PAPER
    x, y = frame.place(2, 0)
    assert pixel(page, (x, y - 8)) == LIMIT
    x, y = frame.place(0, 0)
    assert pixel(page, (x, y - 8)) == PAPER


@pytest.mark.parametrize("huge", [1e-30, 1.0, 3e38])
def test_losses_of_any_size_are_within_the_frame(huge):
    from explainable_latents.nodes.host.sampling.loss_plot import word_colours

    made = plot(guided_step(7, [[huge], [huge / 4]]))
    frame = made.frame()
    for word, loss in enumerate((huge, huge / 4)):
        x, y = frame.place(7, loss)
        assert frame.left < x < frame.right
        assert frame.top <= y <= frame.bottom
        assert pixel(made.draw(0), (x, y)) == word_colours(2)[word]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_refused_with_its_word_and_step(broken):
    with pytest.raises(ValueError, match=r"the loss of beach at step 3 is \[(nan|inf)\].*another precision"):
        plot(guided_step(2, [[0.1], [0.2]]), guided_step(3, [[0.1], [broken]]))


def test_a_run_of_skipped_steps_alone_has_no_plot():
    with pytest.raises(ValueError, match="no step of this run was measured"):
        plot(skipped(0))


def test_each_picture_of_a_batch_has_a_sheet_with_its_own_losses_and_maps_and_the_boxes():
    from explainable_latents.nodes.host.sampling.guidance_report import GuidedRun
    from explainable_latents.nodes.host.sampling.guidance_sheet import guidance_sheets
    from explainable_latents.nodes.host.sampling.loss_plot import HEIGHT, WIDTH, LossPlot, word_colours

    steps = [guided_step(n, [[0.9, 0.5, 0.2], [0.4, 0.8, 0.1]]) for n in range(2)]
    sheets = guidance_sheets(GuidedRun(places=PLACES, steps=steps), None)
    without = guidance_sheets(GuidedRun(steps=steps), None)
    assert len(sheets) == 3
    frame, colours = LossPlot(steps).frame(), word_colours(2)
    for picture, sheet in enumerate(sheets):
        pixels = (sheet * 255).round().int()
        for word, loss in enumerate(steps[0].before[:, picture].tolist()):
            x, y = frame.place(0, loss)
            assert tuple(pixels[round(y), round(x)].tolist()) == colours[word]
        # both maps: 178 pixels wide, 2/3 as high, below a line of text; the box of a word in its colour
        assert sheet.shape == (HEIGHT, WIDTH + 188, 3)
        height, width = round(178 * 8 / 12), 178
        for word, top in enumerate((22, 232)):
            tile = pixels[top : top + height, WIDTH : WIDTH + width]
            right, bottom = ((width // 2, height // 2), (width - 1, height - 1))[word]
            left = (0, width // 4)[word]
            colour = torch.tensor(colours[word])
            along = (tile[bottom - 2 : bottom + 2, left + 4 : right - 4] == colour).all(-1).any(0)
            assert along.all()
            assert not torch.equal(sheet, without[picture])
    assert not torch.equal(sheets[0], sheets[1])


def test_a_picture_lies_under_its_maps_and_must_have_their_proportions():
    from explainable_latents.nodes.host.sampling.guidance_report import GuidedRun
    from explainable_latents.nodes.host.sampling.guidance_sheet import guidance_sheets

    run = GuidedRun(steps=[guided_step(0, [[0.9], [0.4]])])
    alone, dark, bright = (
        guidance_sheets(run, image)[0] for image in (None, torch.zeros(1, 64, 96, 3), torch.ones(1, 64, 96, 3))
    )
    assert torch.equal(alone[:, :600], dark[:, :600])
    assert dark[30:100, 610:700].mean() < alone[30:100, 610:700].mean() < bright[30:100, 610:700].mean()
    with pytest.raises(ValueError, match="cannot belong to a latent of 12x8"):
        guidance_sheets(run, torch.zeros(1, 64, 64, 3))


def test_what_is_drawn_is_the_run_that_made_the_latent_or_an_error():
    from comfy_execution.graph_utils import ExecutionBlocker

    from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
    from explainable_latents.nodes.core.methods.guidance import Guidance
    from explainable_latents.nodes.host.sampling.guidance_sheet import guidance_outputs
    from explainable_latents.nodes.host.sampling.report import Report
    from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
    from tests.host.unets import SUBJECTS, noise, random_unet, sample

    model = random_unet(seed=3)
    how = Guidance(step_size=2.0)
    report = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, how).install(model)
    with torch.inference_mode():
        first, second = (sample(model, 4, batch=3, start=noise(3, (8, 8), seed=seed)) for seed in (1, 2))
    sheets = [guidance_outputs(report, each, None)[0] for each in (first, second)]
    assert [len(each) for each in sheets] == [3, 3]
    assert not torch.equal(*sheets)
    with pytest.raises(ValueError, match="none of the 2 runs in the report made this latent"):
        guidance_outputs(report, first * 2, None)
    with pytest.raises(ValueError, match="this report has no losses: connect the report of a node that guides"):
        guidance_outputs(Report(8), first, None)
    off = random_unet(seed=3)
    report = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, Guidance(strength=0.0)).install(off)
    with torch.inference_mode():
        sheet, text, drawn = guidance_outputs(report, sample(off, 4), None)
    assert isinstance(sheet, ExecutionBlocker)
    assert drawn is None
    assert text == "no step was guided"
