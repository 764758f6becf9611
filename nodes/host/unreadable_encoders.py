"""Text encoders of the host of which the words' rows cannot be told, each with its reason."""

from __future__ import annotations

from typing import Any

_NO_PICTURES = "makes no pictures, so there is no attention of its words to read"
_NO_WORDS = "its tokenizer does not tell which tokens a text of the prompt became"

# Name of the host's tokenizer class -> what it belongs to, and why it is refused.
UNREADABLE = {
    "LongCatImageTokenizer": f"LongCat-Image is not supported: {_NO_WORDS}, and it cuts quoted text into letters",
    "LensTokenizer": f"Lens is not supported: {_NO_WORDS}",
    "MiniMaxH3Tokenizer": f"MiniMax H3 is not supported: {_NO_WORDS}, and it makes video with sound",
    "LTXAVGemmaTokenizer": "LTX-2 is not supported: it makes video with sound of one text, whose rows it mixes first",
    "AceT5Tokenizer": f"ACE-Step {_NO_PICTURES}",
    "ACE15Tokenizer": f"ACE-Step 1.5 {_NO_PICTURES}",
    "SAT5Tokenizer": f"Stable Audio {_NO_PICTURES}",
    "SAT5GemmaTokenizer": f"Stable Audio 3 {_NO_PICTURES}",
    "SAM3TokenizerWrapper": f"SAM 3 {_NO_PICTURES}",
    "Gemma3_12BTokenizer": f"Gemma 3 writes text and {_NO_PICTURES}",
    "Gemma4Tokenizer": f"Gemma 4 writes text and {_NO_PICTURES}",
    "Gemma4UnifiedTokenizer": f"Gemma 4 writes text and {_NO_PICTURES}",
}


def check_readable(clip: Any) -> None:
    """Raise ValueError for a CLIP whose tokenizer is one of UNREADABLE, or made from one."""
    for kind in type(clip.tokenizer).__mro__:
        if kind.__name__ in UNREADABLE:
            raise ValueError(f"the connected CLIP: {UNREADABLE[kind.__name__]}. Connect the CLIP of an image model.")
