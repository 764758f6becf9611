"""Parse Subjects: from any prompt to the right text-encoder tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from comfy_api.latest import io, ui

from .core.words.english.pipeline import PARSERS
from .core.words.parsing import EXTENTS, SELECTIONS, table
from .core.words.subjects import joined_text
from .host.parsed_words import parse_and_show
from .host.same_prompt import ParsedPrompt
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
                io.Combo.Input(
                    "parser",
                    options=list(PARSERS),
                    default=PARSERS[0],
                    tooltip="rules: built-in English word lists and rules. spacy: an installed English spaCy model. "
                    "auto: the spaCy model if one is installed, but rules for lists of tags.",
                ),
                io.String.Input(
                    "override",
                    default="",
                    tooltip="Words or phrases of the prompt to use instead of those that the parser finds, separated "
                    "by commas: dog, red car. dog#2 is only the second dog; without a number every occurrence counts. "
                    "scene: beach names the scene, not: ball is left out, cat? is used only if the prompt has it.",
                ),
                io.Combo.Input(
                    "words",
                    options=list(EXTENTS),
                    default=EXTENTS[0],
                    advanced=True,
                    tooltip="What stands for a subject: its head noun (dog), as in the paper, or the whole phrase "
                    "with its adjectives (small white dog).",
                ),
                io.Combo.Input(
                    "which",
                    options=list(SELECTIONS),
                    default=SELECTIONS[0],
                    optional=True,
                    advanced=True,
                    tooltip="Which things become subjects. main subject: what the prompt is a picture of, and what "
                    "'and' joins to it (a dog and a cat). all things: every thing that is mentioned (also the ball "
                    "they play with).",
                ),
            ],
            outputs=[
                Subjects.Output(display_name="subjects", tooltip="The words with their token positions."),
                io.String.Output(display_name="subject text", tooltip="The subjects, separated by commas."),
                io.String.Output(display_name="scene text", tooltip="The scenes, separated by commas."),
            ],
        )

    @classmethod
    def execute(
        cls, clip: Any, text: str, parser: str, override: str, words: str, which: str = SELECTIONS[0]
    ) -> io.NodeOutput:
        """Parse the prompt and show on the node the table of words, roles and token positions, and the chips."""
        named, chips = parse_and_show(clip, text, override, parser, words, which)
        return io.NodeOutput(
            replace(named, source=ParsedPrompt(clip, text)),
            joined_text(named.items, "subject"),
            joined_text(named.items, "scene"),
            ui={**ui.PreviewText(table(named)).as_dict(), "el_chips": [chips]},
        )


NODES = [ELParseSubjects]
