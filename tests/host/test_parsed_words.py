"""The words of a prompt for the browser, read by the server while nodes run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from explainable_latents.nodes.core.words.english.pipeline import rules_pipeline
from explainable_latents.nodes.host.parsed_words import live_words

PROMPTS = [f"a {word} on the beach" for word in ("dog", "cat", "horse", "car", "boat", "bird", "tree", "house")]


def roles(prompt: str) -> dict[str, str]:
    shown = live_words(prompt, "", "rules", "head noun", "main subject")
    return {word["text"]: word["role"] for word in shown["words"] if word["role"]}


def test_threads_that_ask_at_once_share_one_tagger_and_each_gets_its_own_words(comfy):
    rules_pipeline.cache_clear()
    with ThreadPoolExecutor(len(PROMPTS)) as threads:
        found = list(threads.map(roles, PROMPTS))
    assert found == [{prompt.split()[1]: "subject", "beach": "scene"} for prompt in PROMPTS]
    assert rules_pipeline.cache_info().misses == 1
