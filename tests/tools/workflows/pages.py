"""What lies where on the templates: columns of nodes, from left to right, and groups of columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Span = tuple[int, int]  # the first and the last of some columns


class Column(NamedTuple):
    """Titles of nodes, from top to bottom, and the group they are in: "" is the group of the column before."""

    width: int
    group: str
    titles: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """The columns of a template, and below which of them its notes lie: one for each language.

    heights: of nodes that differ from others of their class, by title. tops: of nodes that stand lower than what is
    above them needs, so that wires pass over them; of notes, which may stand above their columns. folded: titles of
    nodes that show only these. gap: between columns.
    """

    columns: tuple[Column, ...]
    notes: tuple[Span, Span]
    heights: dict[str, int] = field(default_factory=dict)
    tops: dict[str, int] = field(default_factory=dict)
    gap: int = 44
    folded: frozenset[str] = frozenset()


NOTE_TITLES = ENGLISH_NOTE, CHINESE_NOTE = "About this template", "关于此模板"
STOCK_SAMPLER = 430  # high when the masks of its steps are shown below it
_LOADERS = Column(250, "1 · Model and reference", ("Checkpoint", "Reference picture"))
_PROMPTS = Column(280, "2 · Prompt", ("Reference latent", "Negative prompt", "Prompt"))


def _masked(where: str, acts: str) -> Page:
    """The page of the templates with KSampler (Masked Latent): where the mask is from, and what is shown of it."""
    columns = (
        _LOADERS,
        _PROMPTS,
        Column(260, "3 · Where", (where,)),
        Column(260, "4 · Sample and replace", ("Sampler",)),
        Column(226, "5 · Look", ("Decode", "Masks as pictures")),
        Column(340, "", ("Masks", "Heat maps")),
        Column(280, "6 · Result", ("Result", acts)),
    )
    return Page(columns, ((3, 4), (0, 0)))


def _draft(use: Column, *more: str, mask: int = 640, note: Span = (7, 8), again: int = 226, gap: int = 24) -> Page:
    """The page of the templates whose mask comes from a draft; `use`: of the mask. more: another prompt.

    mask: how low the mask is shown. note: the columns above the Chinese note. again: how wide the second sampler is.
    """
    columns = (
        Column(226, "1 · Model and reference", ("Checkpoint", "Reference picture")),
        Column(240, "2 · Prompt", ("Reference latent", "Negative prompt", "Prompt")),
        Column(226, "3 · A draft, watched", ("Watch the words", *more)),
        Column(226, "", ("Sampler",)),
        Column(226, "4 · Its attention becomes a MASK", ("Maps",)),
        Column(226, "", ("Where the subject is",)),
        use,
        Column(again, "", ("Sample again",)),
        Column(226, "", ("Decode",)),
        Column(226, "", ("Result", "Mask")),
    )
    tops = {"Watch the words": 100, "Reference latent": 440, "Sampler": 700, "Sample again": 90, "Maps": 560}
    tops |= {"Mask as picture": mask, "Mask": max(930, mask)}
    return Page(columns, ((2, 4), note), tops=tops, gap=gap, folded=frozenset({"Watch the words"}))


def _transformer(tops: dict[str, int], notes: tuple[Span, Span], encoder: str, negative: str, *guidance: str) -> Page:
    """The page of the templates for transformers: a picture whose words are watched, and another subject in it.

    tops: of all nodes and notes. encoder, negative: titles of these nodes. guidance: titles of the nodes for both
    prompts, if there are any.
    """

    def column(width: int, group: str, *titles: str) -> Column:
        return Column(width, group, tuple(sorted(titles, key=tops.__getitem__)))

    columns = (
        column(236, "1 · Models", encoder, "Diffusion model"),
        column(270, "2 · Old and new prompt", "Prompt", "Shift", "New prompt"),
        column(226, "3 · A picture, watched", "Empty latent", "Watch the words", negative, *guidance),
        column(226, "", "Sampler", "Where the subject is"),
        column(260, "4 · Another subject, by masks", "VAE", "Maps", "Sample again"),
        column(226, "5 · Look", "Decode", "Decode again", "Masks as pictures"),
        column(340, "", "Heat maps", "Result"),
        column(300, "", "What the words look at", "Masks"),
    )
    heights = {"What the words look at": 420, "Masks": 280, "Result": 306}
    folded = frozenset({"Watch the words", negative} if guidance else {"Watch the words"})
    return Page(columns, notes, heights, tops, gap=56, folded=folded)


# Where everything stands on the pages of transformers without guidance nodes.
_UNGUIDED = {
    **{"Diffusion model": 20, "Text encoder": 600, "Shift": 20, "Prompt": 140, "New prompt": 720, "Empty latent": 724},
    **{"Watch the words": 490, "Negative prompt": 560, "No negative prompt": 560, "Sampler": 100},
    **{"Where the subject is": 740, "VAE": 0, "Maps": 380, "Sample again": 600, "Decode again": 0, "Decode": 110},
    **{"Masks as pictures": 360, "Result": 0, "Heat maps": 530, "What the words look at": 0, "Masks": 480},
    **{ENGLISH_NOTE: 830, CHINESE_NOTE: 940},
}

PAGES: dict[str, Page] = {
    "01_baseline": Page(
        (
            Column(290, "1 · Model and reference", _LOADERS.titles),
            Column(340, "2 · Prompt", _PROMPTS.titles),
            Column(320, "3 · Sample", ("Sampler",)),
            Column(226, "4 · Result", ("Decode",)),
            Column(420, "", ("How much of the reference is left", "Result")),
        ),
        ((2, 3), (0, 0)),
        {"Result": 480},
    ),
    "02_aggregated_attention": _masked("Where the subject is", "What the words attend to"),
    "03_scene_based": Page(
        (
            Column(230, *_LOADERS[1:]),
            Column(250, *_PROMPTS[1:]),
            Column(250, "3 · Where", ("Where the scene is",)),
            Column(250, "4 · Patch the model, and sample", ("Keep the subject",)),
            Column(240, "", ("Sampler",)),
            Column(226, "5 · Look", ("Decode", "What happened")),
            Column(226, "", ("Masks as pictures",)),
            Column(340, "", ("Masks", "Heat maps")),
            Column(260, "6 · Result", ("Result", "What the words attend to")),
        ),
        ((3, 4), (0, 0)),
        {"Sampler": STOCK_SAMPLER},
        {"Sampler": 720},
        gap=26,
    ),
    "04_abs_grad_sam": _masked("What the subject depends on", "What the words act on"),
    "05_explain_picture": Page(
        (
            Column(240, "1 · Model and picture", ("Checkpoint", "Picture to explain")),
            Column(270, "2 · Describe the picture", ("Picture as latent", "Prompt")),
            Column(300, "3 · Look", ("Look at the words", "What depends on the words")),
            Column(340, "4 · Result", ("Heat maps", "Smooth")),
            Column(300, "", ("What the words attend to", "Grow")),
            Column(226, "5 · A MASK of the subject", ("Where the subject is",)),
            Column(226, "", ("Mask as picture",)),
            Column(226, "", ("Mask",)),
        ),
        ((5, 7), (3, 4)),
        {"What the words attend to": 500},
        {"Smooth": 640, "Grow": 640, "Where the subject is": 560, "Mask as picture": 560, "Mask": 560},
        gap=52,
    ),
    "06a_latent_noise_mask": Page(
        (
            Column(226, "1 · Model and reference", ("Checkpoint", "Reference picture")),
            Column(226, "2 · Prompt", ("Reference latent", "Negative prompt", "Prompt")),
            Column(226, "3 · A draft, watched", ("Watch the words",)),
            Column(226, "", ("Sampler",)),
            Column(226, "4 · Its attention becomes a MASK", ("Maps",)),
            Column(226, "", ("Decode the draft", "Where the subject is")),
            Column(226, "5 · Draw again, only inside", ("Only inside the mask", "Mask as picture")),
            Column(226, "", ("Sample again",)),
            Column(226, "", ("Decode",)),
            Column(300, "6 · Result", ("Mask", "Before and after", "Result")),
        ),
        ((8, 8), (2, 2)),
        tops={
            **{"Checkpoint": 55, "Reference picture": 212, "Reference latent": 370, "Negative prompt": 481},
            **{"Prompt": 764, "Watch the words": 39, "Sampler": 731, "Maps": 563, "Decode the draft": 796},
            **{"Where the subject is": 914, "Only inside the mask": 441, "Mask as picture": 924, "Sample again": 69},
            **{"Decode": 606, "Mask": 7, "Before and after": 363, "Result": 932},
            **{ENGLISH_NOTE: 764, CHINESE_NOTE: 854},
        },
        gap=18,
        folded=frozenset({"Watch the words"}),
    ),
    "06b_conditioning_mask": _draft(
        Column(226, "5 · Each prompt in its place", ("Each prompt in its place", "Mask as picture")), "The scene alone"
    ),
    "06c_mask_from_image": _draft(
        Column(226, "5 · The same mask at every step", ("The same mask at every step", "Mask as picture")),
        mask=1040,
        note=(8, 8),
        again=260,
        gap=20,
    ),
    "07_segment_picture": Page(
        (
            Column(290, "1 · Model and picture", ("Checkpoint", "Picture to segment", "Prompt")),
            Column(340, "2 · Words for the regions", ("Picture as latent", "Positive prompt", "Words")),
            Column(380, "3 · Regions", ("Cut into regions",)),
            Column(226, "4 · Result", ("Masks as pictures",)),
            Column(400, "", ("Regions", "Masks")),
        ),
        ((0, 1), (2, 3)),
        {"Regions": 440, "Masks": 400},
        gap=100,
    ),
    "08_find_in_another_picture": Page(
        (
            Column(290, "1 · Model and pictures", ("Checkpoint", "Picture A", "Picture B")),
            Column(300, "2 · Prompt for both, and a mask of A", ("Mark by colour", "Prompt")),
            Column(340, "3 · Find", ("Find the points", "Find what is marked")),
            Column(226, "4 · Result", ("Coordinates for SAM", "Mask as picture")),
            Column(460, "", ("Both pictures", "Mask in picture B")),
        ),
        ((2, 3), (4, 4)),
        {"Both pictures": 400, "Mask in picture B": 380},
        gap=120,
    ),
    "09_teach_regions": Page(
        (
            Column(290, "1 · Model and pictures", ("Checkpoint", "Picture to search", "Picture that teaches")),
            Column(300, "2 · Prompt for all, and a mask", ("Mark by colour", "Prompt")),
            Column(320, "3 · Teach, and find", ("Teach what is marked",)),
            Column(280, "", ("Find it",)),
            Column(226, "4 · Look", ("Mask as picture", "Uncertainty as picture")),
            Column(360, "", ("What was found", "How uncertain")),
        ),
        ((2, 3), (4, 5)),
        {"What was found": 340, "How uncertain": 340},
        gap=100,
    ),
    "10_refined_attention": _masked("Where the subject is", "What the words attend to"),
    "11_show_attention": Page(
        (
            Column(300, "1 · Model and size", ("Checkpoint", "Empty latent")),
            Column(480, "2 · Generate and look", ("Prompt, sampler and attention",)),
            Column(440, "3 · Result", ("Result",)),
        ),
        ((2, 2), (0, 0)),
        {"Result": 480},
        gap=80,
    ),
    "12_prompt_to_prompt": Page(
        (
            Column(230, "1 · Model and prompts", ("Target prompt", "Source prompt", "Checkpoint")),
            Column(250, "2 · What the new picture takes over", ("Negative prompt", "What is taken over")),
            Column(250, "3 · Where it may differ", ("Target", "Source")),
            Column(230, "", ("Where the target's subject is", "Where the source's subject is")),
            Column(230, "4 · Sample both", ("Empty latent", "Source and target together")),
            Column(240, "", ("Sampler", "Sampler of the source")),
            Column(200, "", ("Decode", "Decode the source")),
            Column(330, "5 · Result", ("Result", "How much of the source is left", "Source picture")),
        ),
        ((2, 3), (0, 0)),
        tops={
            **{"Target prompt": 138, "Source prompt": 390, "Checkpoint": 556},
            **{"Negative prompt": 671, "What is taken over": 842, "Target": 74, "Source": 552},
            **{"Where the target's subject is": 273, "Where the source's subject is": 888},
            **{"Empty latent": 360, "Source and target together": 766, "Sampler": 150, "Sampler of the source": 656},
            **{"Decode": 464, "Decode the source": 576, "Result": 25, "How much of the source is left": 418},
            "Source picture": 947,
        },
        gap=62,
        folded=frozenset({"Source", "Where the target's subject is", "Where the source's subject is"}),
    ),
    "13_flux": _transformer(
        {
            **{"Text encoders": 150, "Diffusion model": 470, "Prompt": 20, "Shift": 500, "New prompt": 710},
            **{"Guidance": 10, "Empty latent": 150, "No negative prompt": 350, "Watch the words": 410},
            **{"New guidance": 630, "Sampler": 80, "Where the subject is": 710, "VAE": 230, "Maps": 360},
            **{"Sample again": 580, "Masks as pictures": 0, "Decode": 90, "Decode again": 200, "Result": 80},
            **{"Heat maps": 450, "Masks": 0, "What the words look at": 470, ENGLISH_NOTE: 980, CHINESE_NOTE: 880},
        },
        ((7, 7), (0, 0)),
        *("Text encoders", "No negative prompt", "Guidance", "New guidance"),
    ),
    "14_qwen_image": _transformer(_UNGUIDED, ((0, 0), (7, 7)), "Text encoder", "Negative prompt"),
    "15_z_image": _transformer(_UNGUIDED, ((0, 0), (7, 7)), "Text encoder", "No negative prompt"),
    "16a_inversion": Page(
        (
            Column(270, "1 · Model and picture", ("Target prompt", "Source prompt", "Checkpoint", "Picture to edit")),
            Column(
                250,
                "2 · What the new picture takes over",
                ("Picture as latent", "Negative prompt", "What is taken over"),
            ),
            Column(250, "3 · The way into the noise", ("Target", "Source")),
            Column(250, "", ("Where the target's subject is", "Where the source's subject is", "Invert")),
            Column(250, "4 · Sample both", ("Source and target together",)),
            Column(240, "", ("Sampler",)),
            Column(200, "", ("Decode",)),
            Column(330, "5 · Result", ("How much of the picture is left", "Result")),
        ),
        ((5, 5), (6, 6)),
        {"Target": 420, "Invert": 440, "What is taken over": 390, "Sampler": 330},  # more than that has room
        tops={
            **{"Target prompt": 160, "Source prompt": 360, "Checkpoint": 540, "Picture to edit": 710},
            **{
                "Picture as latent": 780,
                "Negative prompt": 890,
                "What is taken over": 950,
                "Target": 50,
                "Source": 680,
            },
            **{"Where the target's subject is": 250, "Where the source's subject is": 540, "Invert": 810},
            **{"Source and target together": 570, "Sampler": 360, "Decode": 240, "Result": 600},
            **{ENGLISH_NOTE: 770, CHINESE_NOTE: 390},
        },
        gap=64,
        folded=frozenset(
            {"Negative prompt", "Source", "Where the target's subject is", "Where the source's subject is"}
        ),
    ),
    "16b_edit_friendly": Page(
        (
            Column(290, "1 · Model and picture", ("Picture to edit", "Checkpoint")),
            Column(
                300,
                "2 · Old and new prompt",
                ("Picture as latent", "Negative prompt", "Target prompt", "Source prompt"),
            ),
            Column(280, "3 · The way into the noise", ("Invert with noise",)),
            Column(280, "4 · Sample with that noise", ("Sampler",)),
            Column(240, "", ("Decode",)),
            Column(420, "5 · Result", ("How much of the picture is left", "Result")),
        ),
        ((2, 2), (3, 3)),
        tops={
            **{"Checkpoint": 460, "Picture as latent": 70, "Negative prompt": 570, "Target prompt": 740},
            **{"Source prompt": 910, "Invert with noise": 90, "Sampler": 570, "Decode": 480, "Result": 520},
            **{ENGLISH_NOTE: 790, CHINESE_NOTE: 950},
        },
        gap=80,
    ),
    "17_diffedit": Page(
        (
            Column(230, "1 · Model and picture", ("Picture to edit", "Checkpoint")),
            Column(
                240,
                "2 · Old and new prompt",
                ("Picture as latent", "Negative prompt", "Target prompt", "Source prompt"),
            ),
            Column(250, "3 · Where they differ, and the way into the noise", ("Where the prompts differ",)),
            Column(240, "", ("Invert", "What may change")),
            Column(226, "", ("The same mask at every step", "Mask as picture")),
            Column(240, "4 · Sample, and keep the rest", ("Keep the picture elsewhere",)),
            Column(230, "", ("Sampler",)),
            Column(230, "", ("Decode", "Mask")),
            Column(300, "5 · Result", ("How much of the picture is left", "Result")),
        ),
        ((5, 5), (6, 6)),
        {"Sampler": 424},
        {
            **{"Picture to edit": 70, "Checkpoint": 520, "Picture as latent": 10, "Negative prompt": 140},
            **{"Target prompt": 200, "Source prompt": 370, "Where the prompts differ": 640, "Invert": 460},
            **{"What may change": 1040, "The same mask at every step": 590, "Mask as picture": 800},
            **{"Keep the picture elsewhere": 300, "Sampler": 140, "Mask": 770, "Result": 620},
            **{"How much of the picture is left": 40, ENGLISH_NOTE: 880, CHINESE_NOTE: 860},
        },
        gap=39,
        folded=frozenset({"Negative prompt", "Mask as picture", "The same mask at every step"}),
    ),
    "18_masactrl": Page(
        (
            Column(300, "1 · Model and size", ("What is taken over", "Checkpoint")),
            Column(300, "2 · Old and new prompt", ("Source",)),
            Column(260, "3 · Sample both", ("Negative prompt", "Target", "Source and target together", "Empty latent")),
            Column(250, "", ("Sampler", "Sampler of the source")),
            Column(200, "", ("Decode", "Decode the source")),
            Column(330, "4 · Result", ("Result", "Before and after", "Source picture")),
        ),
        ((0, 0), (1, 1)),
        tops={
            **{"Checkpoint": 640, "Source": 820, "Target": 170, "Source and target together": 340},
            **{"Empty latent": 1150, "Sampler": 250, "Sampler of the source": 900, "Decode": 620},
            "Decode the source": 730,
        },
        gap=62,
    ),
    "19_plug_and_play": Page(
        (
            Column(280, "1 · Model and picture", ("Checkpoint", "Picture with the layout")),
            Column(
                280,
                "2 · Old and new prompt",
                ("What is taken over", "Picture as latent", "Negative prompt", "Prompt", "What the picture shows"),
            ),
            Column(260, "3 · Sample both", ("Picture and result together",)),
            Column(250, "", ("Sampler",)),
            Column(200, "", ("Decode",)),
            Column(330, "4 · Result", ("Before and after", "Result")),
        ),
        ((2, 3), (0, 0)),
        tops={
            **{"Checkpoint": 434, "Picture with the layout": 878, "What is taken over": 85, "Picture as latent": 565},
            **{"Negative prompt": 675, "Prompt": 931, "What the picture shows": 1109, "Sampler": 651, "Decode": 640},
            **{"Picture and result together": 256, "Before and after": 362, "Result": 878},
        },
        gap=62,
    ),
    "26_pause_and_paint": Page(
        (
            Column(230, *_LOADERS[1:]),
            Column(250, "2 · Prompt", ("Negative prompt", "Reference latent", "Prompt")),
            Column(250, "3 · Where, and you paint on it", ("Where the subject is",)),
            Column(250, "", ("Paint on the mask",)),
            Column(250, "4 · Patch the model, pause, and sample", ("Keep the background",)),
            Column(250, "", ("Pause before the details",)),
            Column(240, "", ("Sampler",)),
            Column(226, "5 · Look", ("Decode", "What was answered", "What happened")),
            Column(290, "6 · Result", ("Result", "Report of the pause", "Report of the masks")),
        ),
        ((3, 3), (0, 0)),
        {"Sampler": STOCK_SAMPLER},
        {
            **{
                "Checkpoint": 130,
                "Reference picture": 290,
                "Negative prompt": 10,
                "Reference latent": 250,
                "Prompt": 370,
            },
            **{"Where the subject is": 430, "Paint on the mask": 410, "Keep the background": 330},
            **{"Pause before the details": 610, "Sampler": 120, "Decode": 10, "What was answered": 550},
            **{"What happened": 810, "Report of the pause": 590, "Report of the masks": 870},
            **{ENGLISH_NOTE: 820, CHINESE_NOTE: 750},
        },
        gap=32,
    ),
    "20_regional_prompts": Page(
        (
            Column(240, "1 · Model", ("Checkpoint",)),
            Column(270, "2 · Prompt", ("Left half", "Right half", "Prompt of that place", "Prompt")),
            Column(250, "3 · Regions", ("Where the word is", "Both regions")),
            Column(
                250,
                "",
                ("Empty latent", "Negative prompt", "A prompt for each half", "A prompt where the word is"),
            ),
            Column(250, "4 · Sample", ("Sampler", "Sampler by a word", "Sampler without regions")),
            Column(200, "", ("Decode", "Decode without regions", "Decode by a word")),
            Column(330, "5 · Result", ("Result", "Before and after", "Result by a word")),
        ),
        ((0, 0), (0, 0)),
        tops={
            **{"Checkpoint": 628, "Left half": 44, "Right half": 342, "Prompt of that place": 514, "Prompt": 893},
            **{"Both regions": 1182, "Empty latent": 16, "Negative prompt": 656, "A prompt for each half": 805},
            **{"A prompt where the word is": 1158, "Sampler": 123, "Sampler by a word": 632},
            **{"Sampler without regions": 1094, "Decode": 442, "Decode without regions": 506},
            **{"Decode by a word": 573, "Result": 23, "Before and after": 424, "Result by a word": 1036},
            **{ENGLISH_NOTE: 40, CHINESE_NOTE: 896},
        },
        gap=94,
        folded=frozenset({"Both regions", "Decode", "Decode without regions", "Decode by a word", "Negative prompt"}),
    ),
    "21_cross_image_attention": Page(
        (
            Column(
                280,
                "1 · Model and pictures",
                ("Picture with the appearance", "Checkpoint", "Picture with the structure"),
            ),
            Column(
                280,
                "2 · Prompt",
                ("What the pictures show", "Picture as latent", "Negative prompt", "Appearance as latent"),
            ),
            Column(280, "3 · Sample all", ("What is taken over",)),
            Column(260, "", ("Pictures and result together",)),
            Column(250, "", ("Sampler",)),
            Column(200, "", ("Decode",)),
            Column(330, "4 · Result", ("Result", "Before and after")),
        ),
        ((4, 5), (0, 0)),
        tops={
            **{"Checkpoint": 479, "Picture with the structure": 635, "Picture as latent": 164, "Negative prompt": 272},
            **{"Appearance as latent": 744, "What is taken over": 698, "Pictures and result together": 271},
            **{"Sampler": 44, "Decode": 735, "Result": 112, "Before and after": 605},
        },
        gap=62,
    ),
    "22_keep_words": Page(
        (
            Column(280, "1 · Model", ("Checkpoint",)),
            Column(320, "2 · Prompt", ("Negative prompt", "Prompt")),
            Column(300, "3 · Sample", ("Empty latent", "Keep both")),
            Column(260, "", ("Sampler",)),
            Column(220, "", ("Decode",)),
            Column(440, "4 · Result", ("Result", "What happened")),
        ),
        ((3, 4), (1, 1)),
        tops={
            **{"Checkpoint": 600, "Prompt": 164, "Empty latent": 300, "Keep both": 610, "Sampler": 60},
            **{"Decode": 440, "Result": 60, "What happened": 560, "关于此模板": 840},
        },
        gap=62,
    ),
    "23_place_words": Page(
        (
            Column(300, "1 · Model, and where things are", ("Checkpoint", "Where things are")),
            Column(320, "2 · Prompt", ("Negative prompt", "Empty latent", "Prompt")),
            Column(300, "3 · Sample", ("Each in its place",)),
            Column(260, "", ("Sampler",)),
            Column(220, "", ("Decode",)),
            Column(440, "4 · Result", ("Result", "What happened")),
        ),
        ((5, 5), (2, 2)),
        {"Prompt": 396},  # nothing stands below it
        tops={
            **{"Where things are": 160, "Negative prompt": 620, "Empty latent": 790, "Prompt": 970, "Sampler": 700},
            **{"Each in its place": 100, "What happened": 410},
            **{"About this template": 914, "关于此模板": 1010},
        },
        gap=62,
    ),
    "24_drawn_boxes": Page(
        (
            Column(340, "1 · Model, and draw the box", ("Empty latent", "Checkpoint", "Where it is")),
            Column(280, "2 · Prompt", ("What is in the box", "Negative prompt", "Prompt")),
            Column(240, "3 · Regions", ("Only in the box",)),
            Column(240, "", ("A prompt for the box",)),
            Column(250, "4 · Result", ("Sampler",)),
            Column(200, "", ("Decode",)),
            Column(330, "", ("Result",)),
        ),
        ((1, 3), (4, 6)),
        tops={
            **{"What is in the box": 630, "Negative prompt": 690, "Only in the box": 360, "Sampler": 780},
            **{"Decode": 240, "Result": 300},
        },
        gap=70,
    ),
    "25_structured_diffusion": Page(
        (
            Column(290, "1 · Model and size", ("Empty latent", "Checkpoint")),
            Column(340, "2 · Prompt and phrases", ("Negative prompt", "Prompt")),
            Column(300, "", ("Phrases alone",)),
            Column(300, "3 · With and without", ("Sampler", "Sampler without phrases")),
            Column(226, "", ("Decode", "Decode without phrases")),
            Column(400, "4 · Result", ("Result", "Before and after")),
        ),
        ((0, 0), (3, 3)),
        tops={
            **{"Empty latent": 310, "Checkpoint": 490, "Negative prompt": 620, "Prompt": 790, "Sampler": 250},
            **{"Sampler without phrases": 600, "Decode": 70, "Decode without phrases": 510, "Result": 40},
            **{"Before and after": 460, ENGLISH_NOTE: 690, CHINESE_NOTE: 960},
        },
    ),
    "27_guide_shape": Page(
        (
            Column(280, "1 · Model", ("Checkpoint",)),
            Column(320, "2 · Prompt", ("Negative prompt", "Prompt")),
            Column(300, "3 · Sample", ("Empty latent", "Move the cat")),
            Column(260, "", ("Sampler",)),
            Column(220, "", ("Decode",)),
            Column(440, "4 · Result", ("Result", "What happened")),
        ),
        ((3, 4), (1, 1)),
        tops={
            **{"Checkpoint": 600, "Prompt": 164, "Empty latent": 300, "Move the cat": 610, "Sampler": 60},
            **{"Decode": 440, "Result": 60, "What happened": 560, "关于此模板": 840},
        },
        gap=62,
    ),
    "28_classifier_guidance": Page(
        (
            Column(280, "1 · Models", ("Its text encoder", "Checkpoint")),
            Column(290, "2 · Prompt", ("What it shall match", "Negative prompt", "Prompt")),
            Column(260, "3 · Sample", ("Empty latent", "Image encoder")),
            Column(290, "", ("Better pictures",)),
            Column(250, "", ("Sampler",)),
            Column(170, "", ("Decode",)),
            Column(430, "4 · Result", ("Result", "What happened")),
        ),
        ((0, 1), (3, 5)),
        tops={
            **{"Its text encoder": 0, "Checkpoint": 306, "What it shall match": 163},
            **{"Prompt": 730, "Negative prompt": 531, "Image encoder": 830},
            **{"Empty latent": 60, "Better pictures": 549, "Sampler": 217},
            **{"Decode": 80, "Result": 80, "What happened": 500},
        },
        gap=60,
    ),
    "29_place_phrases": Page(
        (
            Column(300, "1 · Model, and where things are", ("Checkpoint", "Where things are")),
            Column(320, "2 · Prompt", ("Negative prompt", "Empty latent", "Prompt")),
            Column(300, "3 · With and without places", ("Phrases in their places",)),
            Column(270, "", ("Sampler", "Sampler without places")),
            Column(226, "", ("Decode", "Decode without places")),
            Column(400, "4 · Result", ("Result", "Before and after")),
        ),
        ((4, 5), (4, 4)),
        {"Prompt": 396},  # nothing stands below it
        tops={
            **{"Where things are": 160, "Negative prompt": 620, "Empty latent": 790, "Prompt": 970, "Sampler": 600},
            **{"Phrases in their places": 150, "Sampler without places": 1000, "Before and after": 400},
            **{ENGLISH_NOTE: 970, CHINESE_NOTE: 230},
        },
        gap=62,
    ),
    "30_eye_for_an_eye": Page(
        (
            Column(
                270,
                "1 · Model and pictures",
                ("Checkpoint", "Picture with the structure", "Picture with the appearance"),
            ),
            Column(
                270,
                "2 · Prompt",
                ("Negative prompt", "Picture as latent", "Appearance as latent", "What the pictures show"),
            ),
            Column(230, "3 · Sample all", ("Where the thing is",)),
            Column(270, "", ("What is taken over",)),
            Column(250, "", ("Pictures and result together",)),
            Column(250, "", ("Sampler",)),
            Column(190, "", ("Decode",)),
            Column(330, "4 · Result", ("Result", "Before and after")),
        ),
        ((2, 3), (5, 6)),
        tops={
            **{"Checkpoint": 100, "Picture with the structure": 256, "Picture with the appearance": 640},
            **{"Negative prompt": 328, "Picture as latent": 492, "Appearance as latent": 546},
            **{"What the pictures show": 600, "Where the thing is": 672, "What is taken over": 611},
            **{"Pictures and result together": 496, "Decode": 480, "Before and after": 384},
        },
        gap=58,
        folded=frozenset({"Picture as latent", "Appearance as latent", "Where the thing is"}),
    ),
}
