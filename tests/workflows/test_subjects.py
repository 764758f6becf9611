"""Parse Subjects on the real server, with the toy checkpoint: what a workflow gets, and what a user is told."""

import pytest

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import ComfyError

DEFAULTS = {"parser": "rules", "override": "", "words": "head noun"}


def graph(text: str, **inputs: str) -> dict:
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "toy.safetensors"}},
        "parse": {
            "class_type": "ELParseSubjects",
            "inputs": {"clip": ["model", 1], "text": text, **DEFAULTS, **inputs},
        },
        "scene": {"class_type": "PreviewAny", "inputs": {"source": ["parse", 2]}},
    }


def test_the_table_is_shown_and_the_texts_are_strings(client: ComfyClient):
    result = client.run(graph("a (giraffe:1.3) and a capybara in a forest near a river"))
    assert result.text("parse").splitlines() == [
        "giraffe | subject | l: 2",
        "capybara | subject | l: 5, 6, 7",
        "forest | scene | l: 10",
        "river | scene | l: 13",
        "parser: rules",
    ]
    assert result.text("scene") == "forest, river"


def test_what_comfyui_does_not_interpret_is_shown_first(client: ComfyClient):
    lines = client.run(graph("a dog and a ball <lora:x:1>", which="all things")).text("parse").splitlines()
    assert lines[0].startswith("note: ComfyUI itself does not interpret <lora:x:1>;")
    assert lines[1:3] == ["dog | subject | l: 2", "ball | subject | l: 5"]


def test_a_word_that_is_not_there_fails_with_the_list_of_tokens(client: ComfyClient):
    with pytest.raises(ComfyError, match=r"'cat' is not in the prompt.*1:a 2:dog"):
        client.run(graph("a dog", override="cat"))
