"""Parse Subjects with the tokenizers of SDXL."""

from __future__ import annotations

import importlib

import pytest


@pytest.fixture(scope="module")
def node(nodes):
    return nodes["ELParseSubjects"]


@pytest.fixture(scope="module")
def clip(comfy):
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer = importlib.import_module("comfy.sdxl_clip").SDXLTokenizer()
    clip.tokenizer_options = {}
    return clip


def test_outputs_and_the_text_on_the_node(node, clip):
    result = node.execute(clip, "a (fluffy dog:1.2) and a capybara on the beach", "rules", "", "head noun")
    subjects, subject_text, scene_text = result.args
    assert (subject_text, scene_text) == ("dog, capybara", "beach")
    assert [item.positions() for item in subjects.items] == [(3,), (6, 7, 8), (11,)]
    assert result.ui["text"][0].splitlines() == [
        "dog | subject | g: 3  l: 3",
        "capybara | subject | g: 6, 7, 8  l: 6, 7, 8",
        "beach | scene | g: 11  l: 11",
        "parser: rules",
    ]


def test_the_chips_know_what_the_parser_finds_without_the_override(node, clip):
    (shown,) = node.execute(clip, "a dog on the beach", "rules", "scene: dog", "head noun").ui["el_chips"]
    assert shown["prompt"] == "a dog on the beach"
    assert {word["text"]: word["role"] for word in shown["words"]} == {
        "a": "", "dog": "subject", "on": "", "the": "", "beach": "scene",
    }  # fmt: skip


def test_syntax_that_comfyui_does_not_interpret_is_named_on_the_node(node, clip):
    result = node.execute(clip, "a dog <lora:detail:1> BREAK a beach", "rules", "", "head noun")
    assert result.args[1:] == ("dog", "beach")
    note, *words, _ = result.ui["text"][0].splitlines()
    assert note.startswith("note: ComfyUI itself does not interpret <lora:detail:1>  BREAK;")
    assert words == ["dog | subject | g: 2  l: 2", "beach | scene | g: 13  l: 13"]


def test_a_node_saved_by_version_0_1_gets_the_main_subject_and_a_new_one_all_things_on_demand(node, clip):
    options = {item.id: item for item in node.GET_SCHEMA().inputs}
    assert list(options) == ["clip", "text", "parser", "override", "words", "which"]
    assert options["which"].optional
    saved = clip, "a girl with a kite on a hill", "rules", "", "head noun"
    assert node.execute(*saved).args[1:] == ("girl", "hill")
    assert node.execute(*saved, "all things").args[1:] == ("girl, kite", "hill")


def test_options_reach_the_parser(node, clip):
    result = node.execute(clip, "a red car on a road", "rules", "scene: car", "whole phrase")
    assert result.args[1:] == ("", "car")
    result = node.execute(clip, "a red car on a road", "rules", "", "whole phrase")
    assert result.args[1:] == ("red car", "road")
    with pytest.raises(ValueError, match="spacy download"):
        node.execute(clip, "a dog", "spacy", "", "head noun")
