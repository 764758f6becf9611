"""The ways to guide, or to place words without gradients, that are compared, as presets of the nodes."""

from __future__ import annotations

from typing import Any

PLAIN = "plain"
KEEP_WORDS, PLACE_WORDS, PLACE_PHRASES = "ELKeepWords", "ELPlaceWords", "ELDenseDiffusionModel"
REGIONS, STRUCTURED = "ELRegionalAttentionModel", "ELStructuredDiffusionModel"
_AS_ATTEND_AND_EXCITE = {"unit": "latent", "step_size": 20.0, "schedule": "falling"}
# Name -> node, and what the preset of that name changes; all else is the schema's default, which is as published.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Keep Words, as published": (KEEP_WORDS, {}),
    "Keep Words, gentle": (
        KEEP_WORDS,
        {"unit": "relative", "step_size": 0.03, "schedule": "constant", "refinement": "", "tokens": "mean of tokens"},
    ),
    "Place Words, layout guidance": (PLACE_WORDS, {}),
    "Place Words, LLM-grounded Diffusion": (
        PLACE_WORDS,
        {"steps": "0-60%", "loss": "top values", "unit": "ddim", "step_size": 5.0, "outside_weight": 4.0}
        # its loss is a sum over heads, of which the toy has four and SD 1.5 eight: half of the published 5
        | {"repeats": "0: 4, 5: 3, 10: 2, 20: 1", "until": 2.5},
    ),
    "Place Words, BoxDiff": (
        PLACE_WORDS,
        {"steps": "0-50%", "loss": "BoxDiff", "repeats": "1", "until": 0.0, "stop_for_good": False}
        | {"refinement": "0: 0.05, 10: 0.5, 20: 0.8", **_AS_ATTEND_AND_EXCITE},
    ),
    # the toy's text encoder makes other vectors of a phrase alone, and with them things are missing
    "Place Phrases": (PLACE_PHRASES, {"phrases_alone": False}),
    "Place Phrases, for longer": (PLACE_PHRASES, {"phrases_alone": False, "end": 0.6}),
    "Regional Attention": (REGIONS, {}),
    "Regional Attention, base share 0.2": (REGIONS, {"base_share": 0.2}),
    "Structured Diffusion": (STRUCTURED, {}),
}
# Those of the first group are run for all prompts before those of the second are.
ORDER = (PLAIN, *list(VARIANTS)[:3]), tuple(VARIANTS)[3:]
