"""The pack's own socket types."""

from __future__ import annotations

from comfy_api.latest import io

Subjects = io.Custom("EL_SUBJECTS")
Attention = io.Custom("EL_ATTENTION")
Saliency = io.Custom("EL_SALIENCY")
Masking = io.Custom("EL_MASKING")
Report = io.Custom("EL_REPORT")
