"""What not every model family offers, by the names that messages use."""

from __future__ import annotations

GRADIENTS = "Abs-Grad-SAM"
BLOCKS = "features of the model's blocks"
KEYS = "words that are not in the prompt"
EDITING = "editing by attention"
GUIDANCE = "guidance by attention"

FEATURES = (GRADIENTS, BLOCKS, KEYS, EDITING, GUIDANCE)
