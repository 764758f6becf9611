"""Collects the pack's node classes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .attention import ELCaptureAttention, ELProbeAttention
from .gradients import ELGradientSaliency
from .masked_model import ELMaskedLatentModel, ELMaskedLatentReport
from .masking import ELMaskFromAttention, ELMaskFromGradient, ELMaskFromImage
from .masks import ELDilateSaliency, ELSaliencyToMask, ELSmoothSaliency
from .metrics import ELCompareImages
from .saliency import ELAttentionSaliency, ELSaliencyOverlay
from .sampling import ELMaskedLatentKSampler
from .subjects import ELParseSubjects

NODES: list[type[io.ComfyNode]] = [
    ELParseSubjects,
    ELMaskFromAttention,
    ELMaskFromGradient,
    ELMaskFromImage,
    ELMaskedLatentKSampler,
    ELMaskedLatentModel,
    ELMaskedLatentReport,
    ELCaptureAttention,
    ELAttentionSaliency,
    ELProbeAttention,
    ELGradientSaliency,
    ELSmoothSaliency,
    ELDilateSaliency,
    ELSaliencyToMask,
    ELSaliencyOverlay,
    ELCompareImages,
]


class ExplainableLatents(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node class of the pack, in menu order."""
        return NODES
