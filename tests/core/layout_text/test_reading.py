"""Layouts as people and language models write them, and what is said of mistakes."""

from __future__ import annotations

import random
import string

import pytest

from explainable_latents.nodes.core.layout_text.reading import MOST_BOXES, MOST_CHARACTERS, read_layout
from explainable_latents.nodes.core.layout_text.units import ORDERS, UNITS

DOG, CAT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)
BOTH = [("dog", *DOG), ("cat", *CAT)]

# What is read as BOTH: the dog in the left half, the cat in the right one.
SAME = {
    "places": "dog: left half; cat: right half",
    "lines": "dog: left\ncat: right\n",
    "lines of Windows": "dog: left half\r\ncat: right half\r\n",
    "shares": "dog: 0, 0, 0.5, 1; cat: .5,0,.5,1",
    "spaces instead of commas": "dog: 0 0 0.5 1; cat: 0.5 0 0.5 1.",
    "brackets": "dog: [0, 0, 0.5, 1]\ncat: (0.5, 0, 0.5, 1)",
    "percent": "dog: 0%, 0%, 50%, 100%; cat: 50% 0% 50% 100%",
    "percent beside shares": "dog: 0%, 0%, 50%, 100%; cat: 0.5, 0, 0.5, 1",
    "pixels of 512": "dog: 0, 0, 256, 512; cat: 256, 0, 256, 512",
    "place beside pixels": "dog: left half; cat: 256, 0, 256, 512",
    "bullets": "- dog: left half\n* cat: right half",
    "numbered": "1. dog: left half\n2) cat: right half",
    "bold in Markdown": "**dog**: left half\n**cat**: right half",
    "quotes": "\"dog\": left half\n'cat': right half",
    "code block": "```\ndog: left half\ncat: right half\n```",
    "Chinese marks": "dog：左半；cat：0.5，0，0.5，1",
    "exponents": "dog: 0e0, 0, 5e-1, 1E0; cat: right",
    "LMD": "[('dog', [0, 0, 256, 512]), ('cat', [256, 0, 256, 512])]",
    "LMD with its lines": "Objects: [('dog', [0, 0, 256, 512]), ('cat', [256, 0, 256, 512])]\n"
    "Background prompt: A realistic scene\nNegative prompt: ",
    "LMD in lists": '[["dog", [0, 0, 256, 512]], ["cat", [256, 0, 256, 512]]]',
    "comma at the end": "[('dog', [0, 0, 256, 512,]), ('cat', [256, 0, 256, 512]),]",
    "objects": '{"objects": [{"name": "dog", "bbox": [0, 0, 256, 512]}, {"name": "cat", "bbox": [256, 0, 256, 512]}]}',
    "objects in depth": '{"ok": true, "scene": {"n": null, "layout": {"objects": '
    '[{"name": "dog", "box": [0,0,256,512]}, {"name": "cat", "box": [256,0,256,512]}]}}}',
    "Qwen-VL": '```json\n[\n\t{"bbox_2d": [0, 0, 500, 1000], "label": "dog"},\n'
    '\t{"bbox_2d": [500, 0, 1000, 1000], "label": "cat"}\n]\n```',
    "objects without a list": '{"bbox_2d": [0, 0, 500, 1000], "label": "dog"}\n'
    '{"bbox_2d": [500, 0, 1000, 1000], "label": "cat"}',
    "Gemini": '[{"box_2d": [0, 0, 1000, 500], "label": "dog"}, {"box_2d": [0, 500, 1000, 1000], "label": "cat"}]',
    "words as names": '{"dog": [0, 0, 0.5, 1], "cat": {"x": 0.5, "y": 0, "width": 0.5, "height": 1}}',
    "corners by name": '[{"phrase": "dog", "bbox": {"x1": 0, "y1": 0, "x2": 0.5, "y2": 1}}, '
    '{"phrase": "cat", "bounding_box": {"xmin": 0.5, "ymin": 0, "xmax": 1, "ymax": 1}}]',
    "x0 and x1": '[{"label": "dog", "x0": 0, "y0": 0, "x1": 256, "y1": 512}, '
    '{"label": "cat", "x0": 256, "y0": 0, "x1": 512, "y1": 512}]',
    "sides in the object": '[{"label": "dog", "left": 0, "top": 0, "width": 256, "height": 512}, '
    '{"label": "cat", "left": 256, "top": 0, "right": 512, "bottom": 512}]',
    "places in objects": '[{"label": "dog", "position": "left half"}, '
    '{"label": "cat", "position": "50%, 0%, 50%, 100%"}]',
    "names without quotes": "[{label: 'dog', bbox: [0, 0, 256, 512]}, {label: 'cat', bbox: [256, 0, 256, 512]}]",
    "prose around": "Sure! (Here it is.) I took care [of the dog].\n"
    "[('dog', [0, 0, 256, 512]), ('cat', [256, 0, 256, 512])]\nI hope {this} helps: good luck!",
    "thoughts before": "<think>perhaps [('dog', [0, 0, 9, 9]), ('cat'</think>\ndog: left half\ncat: right half",
    "thoughts before a list": "a [('x', [1, 2, 3</think>[('dog', [0, 0, 256, 512]), ('cat', [256, 0, 256, 512])]",
}


def boxes(text: str, **how):
    found = read_layout(text, **how).layout.boxes
    # sums and shares of float64 numbers
    return [(box.words, *(round(side, 12) for side in (box.left, box.top, box.right, box.bottom))) for box in found]


@pytest.mark.parametrize("form", SAME)
def test_forms_that_say_the_same(form: str):
    assert boxes(SAME[form]) == BOTH


@pytest.mark.parametrize("form", SAME)
def test_every_part_that_changes_is_where_it_is_said_to_be(form: str):
    """Its numbers are put there again, a little smaller: the text then says so, and nothing else in it is another."""
    text = SAME[form]
    found = read_layout(text)
    for number, entry in enumerate(found.entries):
        assert text[slice(*entry.words_span)] == entry.box.words
        start, end = entry.span
        assert entry.box.words in text[start:end]
        sides = {"left": 0.25, "top": 0.5, "right": 0.75, "bottom": 0.875, "width": 0.5, "height": 0.375}
        changed = text
        for site in sorted(entry.sites, key=lambda site: -site.start):
            assert start <= site.start < site.end <= end
            values = (f"{sides[name] * full:g}{site.suffix}" for name, full in zip(site.names, site.full, strict=True))
            changed = changed[: site.start] + ", ".join(values) + changed[site.end :]
        expected = [*BOTH]
        expected[number] = (entry.box.words, 0.25, 0.5, 0.75, 0.875)
        assert boxes(changed) == expected


def test_words_are_kept_as_they_are_written():
    assert boxes("a big, red dog at 12:30: left")[0][0] == "a big, red dog at 12:30"
    assert boxes('[("a \\"red\\" dog\\u0021 \\ud83d\\udc15", [0, 0, 9, 9])]')[0][0] == 'a "red" dog! 🐕'
    assert boxes("🐕: left")[0][0] == "🐕"
    assert boxes("[('dog; [x]: {y}', [0, 0, 9, 9])]")[0][0] == "dog; [x]: {y}"


def test_the_same_words_may_stand_in_several_boxes():
    assert [each[0] for each in boxes("an apple: left; an apple: right")] == ["an apple"] * 2
    assert [each[0] for each in boxes("[('apple', [0,0,9,9]), ('apple', [9,0,9,9])]")] == ["apple"] * 2


def test_the_unit_can_be_said():
    text = "dog: 1, 0, 50, 100"
    assert boxes(text, numbers="percent") == [("dog", 0.01, 0, 0.51, 1)]
    assert boxes(text, numbers="thousandths") == [("dog", 0.001, 0, 0.051, 0.1)]
    assert boxes(text, numbers="pixels", size=(100, 200)) == [("dog", 0.005, 0, 0.255, 1)]
    assert boxes(text)[0][1:] == pytest.approx((1 / 512, 0, 51 / 512, 100 / 512))
    assert read_layout(text).unit == "pixels of 512"
    assert boxes("dog: 1%, 0%, 50%, 100%", numbers="shares") == [("dog", 0.01, 0, 0.51, 1)]
    assert boxes("dog: left", numbers="pixels", size=(9, 9)) == [("dog", *DOG)]


def test_the_order_can_be_said():
    corners = "left, top, right, bottom"
    assert boxes("dog: 0.2, 0.1, 0.5, 0.4", order=corners) == [("dog", 0.2, 0.1, 0.5, 0.4)]
    found = boxes('[{"label": "dog", "bbox": [51.2, 0, 256, 512]}]', order=corners)
    assert found == [("dog", pytest.approx(0.1), 0, 0.5, 1)]
    sizes = "x, y, width, height"
    assert boxes('[{"label": "dog", "bbox_2d": [500, 0, 500, 1000]}]', order=sizes) == [("dog", *CAT)]
    assert boxes('[{"label": "dog", "box": {"x1": 0, "y1": 0, "x2": 0.5, "y2": 1}}]', order=sizes) == [("dog", *DOG)]
    moved = read_layout("dog: left", order=corners).entries[0].sites[0]
    assert moved.names == ("left", "top", "right", "bottom")


def test_sums_that_miss_one_by_rounding_end_at_the_edge():
    assert boxes("dog: 0.7, 0.9, 0.3, 0.1")[0][3:] == (1, 1)
    assert boxes("dog: 0.1, 0.1, 0.2, 0.9000001")[0][4] == 1


# Text -> the quoted line and what is said of it.
MISTAKES = {
    "": "The layout has no box: write words, a colon and a place",
    " \n;;\n": "has no box",
    "dog": "Line 1 of the layout, 'dog': it has no colon: write words, a colon",
    "dog: left half\n\ncat right half": "Line 3 of the layout, 'cat right half': it has no colon",
    ": left half": "Line 1 of the layout, ': left half': it has no words",
    "dog:": "Line 1 of the layout, 'dog:': nothing follows the colon",
    "cat: right; dog: lft half": "'dog: lft half': 'lft half' is no place. Named places are left, right, top",
    "dog: 0.1, 0.2, 0.3": "'dog: 0.1, 0.2, 0.3': 3 numbers where four are needed: left, top, width, height",
    "dog: 0,6, 0,7, 0,2, 0,2": "8 numbers where four are needed.*Decimals have a point",
    "dog: 0.1, 0.2, x, 0.3": "'x, 0.3' is no number",
    "dog: 10px, 20px, 30px, 40px": "'px, 20px, 30px, 40px' is no number",
    "dog: 0.6, 0, 0.5, 1": "its right is at 110 % of the picture, which is outside. Its numbers are read as left, top, "
    "width, height in shares: if they are something else, set order or numbers",
    "dog: -0.1, 0, 0.5, 1": "its left is at -10 % of the picture",
    "dog: 0, 0, 600, 700": "its right is at 117.2 % of the picture and its bottom is at 136.7 % .* in pixels of 512",
    "dog: 0.1, 0.1, 0, 0.5": "it has no width",
    "dog: 0.1, 0.5, 0.2, -0.2": "it has no height, or a negative one",
    "dog: 10%, 20%, 0.3, 0.4": "only some of its numbers have a percent sign",
    "dog: 0.1, 0.1, 0.2, 0.2; cat: 10, 20, 30, 40": "'dog: 0.1, 0.1, 0.2, 0.2': its numbers are shares .* above 1",
    "dog: 0, 0, 1e999, 1": "its numbers are too large",
    "dog: nan, 0, 1, 1": "'nan, 0, 1, 1' is no place",
    "[('dog', [1, 2, 3, 4]), ('cat', [1, 2, 3)]": r"Line 1 .* at '\)\]' a comma or \] is needed here",
    "[('dog', [1, 2, 3, 4])": r"a comma or \] is needed here",
    "Objects:\n[('dog, [1, 2, 3, 4])]": "Line 2 of the layout, .* this text has no closing '",
    "[('dog', [1, 2, 3])]": "3 numbers where four are needed",
    "[('dog', [1, 2, 3, 4]), 'cat']": "Line 1 of the layout, 'cat': it has no words with a box",
    '[{"bbox": [1, 2, 3, 4]}]': "this box has no words. Give it one of: label, name, object",
    '[{"label": "dog"}]': "no box is in it. Write a list such as",
    '{"a": [{"label": "dog", "box": [1, 2, 3, 4]}], "b": [{"label": "cat", "box": [1, 2, 3, 4]}]}': "list 2 of 2",
    "[('dog', [1, 2, 3, 4])] or [('cat', [1, 2, 3, 4]), ('owl', [1, 2, 3, 4])]": "list 2 of 2 .* leave one",
    '{"dog": [1, 2, 3, 4], "dog": [5, 6, 7, 8]}': "the name 'dog' is there twice",
    '{"dog" [1, 2, 3, 4]}': "after 'dog' a colon is needed",
    '{"dog": 1, 2: 3}': "a name in quotes is needed",
    "[('dog', [1, 2, ?, 4])]": "a list, an object, a number or a text in quotes is needed here",
    '[{"label": "dog", "place": "behind the cat"}]': "'behind the cat' is no place",
    "[[" * 60: "lists may be 20 deep",
    "[('  ', [1, 2, 3, 4])]": "A box has no words",
    "dog: left\n" * (MOST_BOXES + 1): f"has {MOST_BOXES + 1} boxes, and at most {MOST_BOXES} are drawn",
    "d" * (MOST_CHARACTERS + 1): f"at most {MOST_CHARACTERS} are read",
    '<script>alert("x")</script>': "it has no colon",
    "__import__('os').system('x'): left half of nothing": "is no place",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: repr(text[:30]))
def test_a_mistake_quotes_its_line_and_says_what_to_do(text: str):
    with pytest.raises(ValueError, match=MISTAKES[text]):
        read_layout(text)


def test_a_long_line_is_quoted_in_part():
    with pytest.raises(ValueError, match="x…': it has no colon") as error:
        read_layout("x" * 40_000)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(("name", "allowed"), [("numbers", UNITS), ("order", ORDERS)])
def test_another_choice_is_refused(name: str, allowed):
    with pytest.raises(ValueError, match=f"{name} 'inches' is not one of: {', '.join(allowed)}"):
        read_layout("dog: left", **{name: "inches"})


def test_whatever_is_written_is_read_or_refused():
    """Random pieces of layouts: nothing else than a ValueError comes of them, and every box is one."""
    numbers = random.Random(8)
    pieces = [*SAME.values(), *MISTAKES, *string.punctuation, "\\", "“", "\ud83d", "\0", "9" * 400, "[(" * 30, '{"']
    pieces = [piece for piece in pieces if len(piece) < 2000]
    read = 0
    for _ in range(3000):
        cut = [
            piece[numbers.randrange(len(piece) + 1) :][: numbers.randrange(60)]
            for piece in numbers.choices(pieces, k=4)
        ]
        try:
            found = read_layout("".join(cut), numbers.choice(UNITS), numbers.choice([*ORDERS]))
        except ValueError:
            continue
        read += 1
        assert len(found.entries) == len(found.layout.boxes) >= 1
    assert read > 20


def test_a_table_says_where_each_box_is():
    assert read_layout("dog: left half; a cat: 0.6, 0.7, 0.2, 0.25").table() == (
        "dog: left 0%, top 0%, width 50%, height 100%\na cat: left 60%, top 70%, width 20%, height 25%"
    )
