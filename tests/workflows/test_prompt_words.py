"""Prompt with Words on the real server: what it encodes and finds, and what the browser is told while one types."""

from typing import Any

import pytest
import requests

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.server import ComfyServer
from tests.workflows.sampled import Graph, Node, capture, captured_maps, node, sampled

WEIGHTED = "a (dog:1.3) on the beach"
LONG = f"a dog on the beach, {', '.join(f'number {n}' for n in range(40))}"
VALUES = {"override": "", "parser": "rules", "words": "head noun", "which": "main subject"}


def picture(positive: Node, model: list = ("model", 0)) -> Graph:
    """A picture of two steps with a prompt of any node."""
    return {
        **sampled(list(model), steps=2),
        "positive": positive,
        "decode": node("VAEDecode", samples=["sampler", 0], vae=["model", 2]),
        "picture": node("SaveImage", images=["decode", 0], filename_prefix="words"),
    }


def with_words(text: str, **values: str) -> Node:
    return node("ELPromptWords", clip=["model", 1], text=text, **{**VALUES, **values})


@pytest.mark.parametrize("text", [WEIGHTED, LONG, ""], ids=["weights", "two chunks", "empty"])
def test_the_picture_is_that_of_clip_text_encode(client: ComfyClient, text: str):
    (own,) = client.run(picture(with_words(text))).images("picture")
    (stock,) = client.run(picture(node("CLIPTextEncode", clip=["model", 1], text=text))).images("picture")
    assert own.tobytes() == stock.tobytes()


def test_its_words_are_those_that_attention_is_read_for(client: ComfyClient):
    graph = picture(with_words(WEIGHTED), ["capture", 0])
    texts = {name: node("PreviewAny", source=["positive", output]) for name, output in (("subjects", 2), ("scenes", 3))}
    numbers = node("TestNumbers", saliency=["maps", 0])
    seen = {"capture": capture(["positive", 1]), "maps": captured_maps("subject"), "numbers": numbers}
    result = client.run({**graph, **texts, **seen})
    assert (result.text("subjects"), result.text("scenes")) == ("dog", "beach")
    assert result.outputs["numbers"]
    assert result.text("positive").splitlines()[:2] == ["dog | subject | l: 2", "beach | scene | l: 5"]


@pytest.fixture
def ask(server: ComfyServer):
    """Ask the server for the words of a prompt, as the browser does while one types."""

    def answer(**values: Any) -> requests.Response:
        address = f"{server.url}/api/explainable_latents/words"
        return requests.post(address, json={**VALUES, **values}, timeout=60, proxies={"no_proxy": "*"})

    return answer


def test_the_words_before_a_run_are_those_after_it(client: ComfyClient, ask):
    for values in ({"text": LONG}, {"text": WEIGHTED, "override": "scene: dog"}, {"text": "<b>a cat</b> & <i>"}):
        graph = {k: v for k, v in picture(with_words(**values)).items() if k in ("model", "positive")}
        (shown,) = client.run(graph).outputs["positive"]["el_chips"]
        assert ask(**values).json() == {**shown, "problem": ""}


def test_what_a_run_would_fail_with_is_told_before_it(client: ComfyClient, ask):
    found = ask(text="a dog on the beach", override="cat").json()
    assert found["words"] == ask(text="a dog on the beach").json()["words"]
    assert found["problem"].startswith("override: 'cat' is not in the prompt.")
    assert found["problem"].endswith("The prompt: a dog on the beach")
    with pytest.raises(ComfyError, match="'cat' is not in the prompt"):
        client.run(picture(with_words("a dog on the beach", override="cat")))
    found = ask(text="a" * 10_001).json()
    assert found["words"] == []
    assert "10,001" in found["problem"]
    assert "is not one of: auto, spacy, rules" in ask(text="a dog", parser="grammar").json()["problem"]


@pytest.mark.parametrize("values", [{}, {"text": 5}, {"text": ["a"]}, {"text": "a dog", "which": None}])
def test_a_request_without_texts_is_refused(ask, values: dict[str, Any]):
    answer = ask(**values)
    assert answer.status_code == 400
    assert "text, override, parser, words, which" in answer.json()["error"]


def test_a_request_that_is_not_json_is_refused(server: ComfyServer):
    address = f"{server.url}/api/explainable_latents/words"
    for body in (b"", b"{", b"[1]", b"\xff"):
        assert requests.post(address, data=body, timeout=60, proxies={"no_proxy": "*"}).status_code == 400
