"""Progress of our own loops, and the user's cancel inside them."""

from __future__ import annotations

import comfy.model_management
import comfy.utils

from ...core.gradients.definition import Progress


def progress_bar() -> Progress:
    """Progress on the node that runs; raises the host's own exception when the user cancels."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        stop_when_cancelled(done, total)
        bar.update_absolute(done, total)

    return report


def stop_when_cancelled(done: int, total: int) -> None:
    """Progress inside a sampler, which has a progress bar of its own."""
    comfy.model_management.throw_exception_if_processing_interrupted()
