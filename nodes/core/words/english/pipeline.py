"""The spaCy pipeline that tags a prompt: an installed English model, or a blank one with the rules of `tagger`.

spaCy is imported on first use: that takes seconds, by which ComfyUI's start must not be delayed.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING

from ...choices import one_of
from .tagger import tag

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

MODELS = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm")
PARSERS = ("auto", "spacy", "rules")


def tag_text(text: str, parser: str) -> tuple[Doc, str]:
    """Return the text with a part of speech for every token, and the name of what tagged it ("rules" or the model's).

    parser: "auto" (a model if one is installed, else rules), "spacy", "rules". Raises ValueError for another name and
    for "spacy" without an installed English model.
    """
    one_of("parser", parser, PARSERS)
    name = None if parser == "rules" else installed_model()
    if parser == "spacy" and name is None:
        raise ValueError(
            "parser is 'spacy', but no English spaCy model is installed. Install one into ComfyUI's Python with "
            "'python -m spacy download en_core_web_sm', or choose 'auto' or 'rules'."
        )
    return _tagged(rules_pipeline() if name is None else model_pipeline(name), text), name or "rules"


@lru_cache(maxsize=1)
def _tagged(pipeline: Language, text: str) -> Doc:
    """Tag a text, and keep the last one: it is read for the main subject and for all things, with and without named
    words. Nothing changes a tagged text."""
    return pipeline(text)


def installed_model() -> str | None:
    """Return the best installed English spaCy model, None when there is none."""
    return next((name for name in MODELS if _is_installed(name)), None)


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@lru_cache(maxsize=1)
def model_pipeline(name: str) -> Language:
    """Load an installed spaCy model once."""
    import spacy

    return spacy.load(name, exclude=["ner", "lemmatizer"])


@lru_cache(maxsize=1)
def rules_pipeline() -> Language:
    """Build the blank English pipeline with the rule-based tagger once."""
    import spacy
    from spacy.language import Language
    from spacy.util import compile_infix_regex

    factory = "explainable_latents_tagger"
    if not Language.has_factory(factory):
        Language.component(factory, func=tag)
    nlp = spacy.blank("en")
    # high-rise and Champs-Élysées are one word; spaCy's own infixes would cut them at the hyphen
    infixes = [rule for rule in nlp.Defaults.infixes if "-|–" not in rule]
    nlp.tokenizer.infix_finditer = compile_infix_regex(infixes).finditer
    nlp.add_pipe(factory)
    return nlp
