"""From any prompt to the right text-encoder tokens: in one node with the encoding, or beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from .core.words.parsing import SELECTIONS, table
from .core.words.subjects import Subjects as ParsedSubjects
from .core.words.subjects import joined_text
from .host.parsed_words import parse_and_show
from .host.same_prompt import ParsedPrompt
from .host.tokens import encode
from .prompt_inputs import extent_input, override_input, parser_input, selection_input
from .sockets import CATEGORY, Subjects


class ELParseSubjects(io.ComfyNode):
    """Finds the subject and scene words of a prompt and their token positions in every text encoder."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELParseSubjects",
            display_name="Parse Subjects",
            category=CATEGORY,
            description="Finds the subject and scene words of a prompt and the positions of their tokens in every text "
            "encoder of the connected CLIP. The prompt may have weights, escapes and embeddings, and may be long.",
            search_aliases=["prompt words", "token positions", "nouns", "attention words", "explainable"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that also encodes this prompt for the sampler."),
                io.String.Input(
                    "text",
                    multiline=True,
                    default="a dog on the beach",
                    tooltip="The prompt, exactly the same text as in CLIP Text Encode.",
                ),
                parser_input(),
                override_input(),
                extent_input(),
                selection_input(),
            ],
            outputs=_word_outputs(),
        )

    @classmethod
    def execute(
        cls, clip: Any, text: str, parser: str, override: str, words: str, which: str = SELECTIONS[0]
    ) -> io.NodeOutput:
        """Parse the prompt and show on the node the table of words, roles and token positions, and the chips."""
        named = parse_and_show(clip, text, override, parser, words, which)
        outputs, shown = _words_of(ParsedPrompt(clip, text), *named)
        return io.NodeOutput(*outputs, ui=shown)


class ELPromptWords(io.ComfyNode):
    """A prompt for the sampler whose words are found, and can be chosen, in the same text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPromptWords",
            display_name="Prompt with Words",
            category=CATEGORY,
            description="Encodes a prompt as CLIP Text Encode does and finds its subject and scene words: one text for "
            "the sampler and for the nodes of this pack. The words can be clicked while you type.",
            search_aliases=["clip text encode", "prompt words", "parse subjects", "attention words", "explainable"],
            is_output_node=True,
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompt."),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a dog on the beach",
                    tooltip="The prompt, with weights, escapes and embeddings as CLIP Text Encode takes them.",
                ),
                override_input(),
                parser_input(advanced=True),
                extent_input(),
                selection_input(),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="conditioning", tooltip="The encoded prompt, bit for bit that of CLIP Text Encode."
                ),
                *_word_outputs(),
            ],
        )

    @classmethod
    def execute(
        cls, clip: Any, text: str, override: str, parser: str, words: str, which: str = SELECTIONS[0]
    ) -> io.NodeOutput:
        """Parse and encode the prompt; show on the node what Parse Subjects shows."""
        named = parse_and_show(clip, text, override, parser, words, which)
        conditioning = encode(clip, text)
        outputs, shown = _words_of(ParsedPrompt(clip, text, conditioning), *named)
        return io.NodeOutput(conditioning, *outputs, ui=shown)


def _words_of(
    source: ParsedPrompt, named: ParsedSubjects, chips: dict[str, Any]
) -> tuple[tuple[object, str, str], dict[str, Any]]:
    """The subjects with their two texts, and what the node shows under them."""
    subjects = replace(named, source=source)
    outputs = subjects, joined_text(named.items, "subject"), joined_text(named.items, "scene")
    return outputs, {**ui.PreviewText(table(named)).as_dict(), "el_chips": [chips]}


def _word_outputs() -> list[io.Output]:
    return [
        Subjects.Output(display_name="subjects", tooltip="The words with their token positions."),
        io.String.Output(display_name="subject text", tooltip="The subjects, separated by commas."),
        io.String.Output(display_name="scene text", tooltip="The scenes, separated by commas."),
    ]


NODES = [ELParseSubjects, ELPromptWords]
