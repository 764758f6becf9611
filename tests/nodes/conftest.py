"""Tests of the nodes call their `execute` in this process, as ComfyUI does; see tests/host for what that takes."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from explainable_latents.nodes.core.words.parsing import parse
from tests.host.conftest import comfy  # noqa: F401  a fixture

PROMPT = "a dog on the beach"


@pytest.fixture(scope="session")
def nodes(comfy) -> dict[str, Any]:  # noqa: F811
    """The pack's node classes by id, in menu order."""
    from explainable_latents.nodes.extension import ExplainableLatents

    return {node.define_schema().node_id: node for node in asyncio.run(ExplainableLatents().get_node_list())}


@pytest.fixture(scope="session")
def toy(comfy, toy_checkpoint) -> SimpleNamespace:  # noqa: F811
    """The toy checkpoint's model, CLIP and VAE, with a prompt, an empty one, and the prompt's words."""
    from explainable_latents.nodes.host.tokens import tokenize

    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(toy_checkpoint))
    positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, ""))
    subjects = parse(PROMPT, tokenize(clip, PROMPT))
    return SimpleNamespace(model=model, clip=clip, vae=vae, positive=positive, negative=negative, subjects=subjects)


@pytest.fixture
def shown(comfy) -> Iterator[Callable[[], list[str]]]:  # noqa: F811
    """While a node is executed: what the host's server was asked to show on it since the last call."""
    import server
    from comfy_execution.utils import CurrentNodeContext

    loop = asyncio.new_event_loop()
    running = server.PromptServer(loop)

    def texts() -> list[str]:
        loop.run_until_complete(asyncio.sleep(0))  # messages come from any thread by way of the loop
        sent = [running.messages.get_nowait() for _ in range(running.messages.qsize())]
        data = [data for event, data, _ in sent if event == server.BinaryEventTypes.TEXT]
        return [each[4 + struct.unpack(">I", each[:4])[0] :].decode() for each in data]

    with CurrentNodeContext("a run", "a node"):
        yield texts
    del server.PromptServer.instance
    loop.close()
