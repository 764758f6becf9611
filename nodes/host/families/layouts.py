"""The transformers whose attention can be read: one record per network class of ComfyUI.

How each lays out text and picture was read from the host's code and seen in tests/host/families.
"""

from __future__ import annotations

from .layout import Layout
from .sites import CROSS, SELF

_DOUBLE, _SINGLE = ("double", "double_blocks"), ("single", "single_blocks")
_ACROSS = {"order": "text", "calls": (SELF, CROSS), "later": False}

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "Qwen-Image, Qwen-Image-Edit",
        "comfy.ldm.qwen_image.model",
        "QwenImageTransformer2DModel",
        (("double", "transformer_blocks"),),
        ("patch_size",),
        "text picture ...",
    ),
    Layout(
        "Flux.1, Flux.2, LongCat, Ovis",
        "comfy.ldm.flux.model",
        "Flux",
        (_DOUBLE, _SINGLE),
        ("patch_size",),
        "text picture ...",
        pads_in_front=True,
    ),
    Layout("Chroma", "comfy.ldm.chroma.model", "Chroma", (_DOUBLE, _SINGLE), ("patch_size",), "text picture"),
    Layout(
        "Chroma Radiance",
        "comfy.ldm.chroma_radiance.model",
        "ChromaRadiance",
        (_DOUBLE, _SINGLE),
        ("patch_size",),
        "text picture",
    ),
    Layout(
        "SD 3, SD 3.5",
        "comfy.ldm.modules.diffusionmodules.mmdit",
        "OpenAISignatureMMDITWrapper",
        (("joint", "joint_blocks"),),
        ("patch_size",),
        "text picture",
        labelled=False,
    ),
    Layout(
        "Z-Image, Lumina 2, NewBie",
        "comfy.ldm.lumina.model",
        "NextDiT",
        (("double", "layers"),),
        ("patch_size",),
        "text picture",
        padded="pad_tokens_multiple",
    ),
    Layout(
        "Krea 2", "comfy.ldm.krea2.model", "SingleStreamDiT", (("single", "blocks"),), ("patch",), "text picture ..."
    ),
    Layout(
        "Cosmos Predict2",
        "comfy.ldm.cosmos.predict2",
        "MiniTrainDIT",
        (("block", "blocks"),),
        ("patch_temporal", "patch_spatial", "patch_spatial"),
        labelled_late=True,
        keys=((), ("cross_attn.k_proj", "cross_attn.k_norm")),
        **_ACROSS,
    ),
    Layout(
        "Anima",
        "comfy.ldm.anima.model",
        "Anima",
        (("block", "blocks"),),
        ("patch_temporal", "patch_spatial", "patch_spatial"),
        labelled_late=True,
        **_ACROSS,
    ),
    Layout(
        "Wan (text to picture or video)",
        "comfy.ldm.wan.model",
        "WanModel",
        (("double", "blocks"),),
        ("patch_size",),
        keys=(("text_embedding",), ("cross_attn.k", "cross_attn.norm_k")),
        **_ACROSS,
    ),
    Layout(
        "AuraFlow",
        "comfy.ldm.aura.mmdit",
        "MMDiT",
        (("double", "double_layers"), ("single", "single_layers")),
        ("patch_size",),
        "text picture",
        front=8,
        labelled=False,
    ),
    Layout(
        "Kandinsky 5",
        "comfy.ldm.kandinsky5.model",
        "Kandinsky5",
        (("double", "visual_transformer_blocks"),),
        ("patch_size",),
        **_ACROSS,
    ),
    Layout(
        "OmniGen 2",
        "comfy.ldm.omnigen.omnigen2",
        "OmniGen2Transformer2DModel",
        (("joint", "layers"),),
        ("patch_size",),
        "text picture",
        labelled=False,
    ),
    Layout(
        "Boogu",
        "comfy.ldm.boogu.model",
        "BooguTransformer2DModel",
        (("double", "double_stream_layers"), ("single", "single_stream_layers")),
        ("patch_size",),
        "text picture",
        labelled=False,
    ),
    Layout(
        "Ideogram 4",
        "comfy.ldm.ideogram4.model",
        "Ideogram4Transformer2DModel",
        (("joint", "layers"),),
        (),
        "text picture",
        labelled=False,
    ),
    Layout(
        "Mage-Flow",
        "comfy.ldm.mage_flow.model",
        "MageFlowTransformer2DModel",
        (("double", "transformer_blocks"),),
        ("patch_size",),
        "text picture ...",
    ),
    Layout(
        "JoyImage",
        "comfy.ldm.joyimage.model",
        "JoyImageTransformer3DModel",
        (("double", "double_blocks"),),
        ("patch_size",),
        "picture ... text",
    ),
    Layout(
        "Lens",
        "comfy.ldm.lens.model",
        "LensTransformer2DModel",
        (("double", "transformer_blocks"),),
        (),
        "picture ... text",
    ),
    Layout(
        "HunyuanImage 2.1, HunyuanVideo",
        "comfy.ldm.hunyuan_video.model",
        "HunyuanVideo",
        (_DOUBLE, _SINGLE),
        ("patch_size",),
        "text ... picture",
        without=("vision_in", "cond_type_embedding"),
    ),
    Layout(
        "Ernie-Image",
        "comfy.ldm.ernie.model",
        "ErnieImageModel",
        (("joint", "layers"),),
        ("patch_size",),
        "picture ... text",
        hidden=("self_attention", "optimized_attention"),
    ),
    Layout(
        "PixArt",
        "comfy.ldm.pixart.pixartms",
        "PixArtMS",
        (("cross", "blocks"),),
        ("patch_size",),
        "text",
        calls=(CROSS,),
        later=False,
        hidden=("cross_attn", "optimized_attention"),
    ),
)

# What is known and cannot be read, by the name of the network's class, and why.
_WAN = "this kind of Wan gives its attention further tokens (poses, sound, reference frames). Load Wan T2V"
REFUSED: dict[str, str] = {
    # Networks of this class that have no layout.
    "HunyuanVideo": "HunyuanVideo 1.5 puts tokens of pictures in front of the text. Load HunyuanImage 2.1",
    "HunYuanDiT": "ComfyUI does not show other programs what this network attends to",
    "HiDreamImageTransformer2DModel": "two text encoders read each word, and ComfyUI gives one of them wrong tokens",
    "HiDreamO1Transformer": "it keeps the text's keys from one step to the next, where they cannot be read",
    "LTXVModel": "it cuts its attention to a video's frames into parts, without saying which",
    "StageC": "the words of Stable Cascade do not reach it as the conditioning that samplers know",
    "PixDiT_T2I": "it cuts the text at its beginning, so the words' places are not known",
    "LTXAVModel": "it makes picture and sound together, and which tokens are the picture's is not known",
    "MiniMaxH3Model": "it packs picture, video and sound into one sequence, and where each is, is not known",
    "PidNet": "it enlarges a picture and looks at text only where it is noise",
    **dict.fromkeys(
        (
            "VaceWanModel",
            "CameraWanModel",
            "WanModel_S2V",
            "HumoWanModel",
            "AnimateWanModel",
            "SCAILWanModel",
            "SCAIL2WanModel",
            "CausalWanModel",
            "WanDancerModel",
        ),
        _WAN,
    ),
}
