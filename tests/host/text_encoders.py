"""The host's text encoders for tests: their classes at full size without weights, on PyTorch's device "meta".

Tokenizers that come with a checkpoint are stood in for: SentencePiece models by one trained here, Mistral's, which this
host cannot build with its transformers, by Qwen's with Mistral's settings.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

SENTENCES = [
    "a red dog on a sunny beach", "two cats and a giraffe in the old garden", "一只狗在沙滩上", "eine Katze am Fluß",
    "a girl with a blue umbrella", "hummingbird, flowers, 4k", "don't look at the café (at night)", "100% C++ #1 1girl",
    "Describe the picture: what is it? <Prompt Start> . ! ; - '",
]  # fmt: skip


@dataclass(frozen=True)
class TextEncoder:
    """A pair of classes of the host, and what is known of it.

    tokenizer, model: names of modules and classes, see `path_of`; a model may be a function that returns the class, and
    options are its arguments. data: what the tokenizer is built with: "shipped", "spiece" (trained here) or "stand-in".
    rows: of PROMPT. first: the encoder and position of the token that row 0 holds. weights: whether parentheses weigh.
    """

    tokenizer: str
    model: str
    rows: int
    first: tuple[str, int]
    weights: bool
    data: str = "shipped"
    options: dict[str, Any] = field(default_factory=dict)


PROMPT = "a (red:1.2) dog on a sunny beach"

# The rows were counted: the 13 tokens a, (, red, :, 1, ., 2, ), dog, on, a, sunny, beach of Qwen without weights, to
# which each encoder adds its template, less what it cuts.
ENCODERS = {
    "SD 1.x": TextEncoder("sd1_clip.SD1Tokenizer", "sd1_clip.SD1ClipModel", 77, ("l", 0), True),
    "SD 2.x": TextEncoder(
        "sd2_clip.SD2Tokenizer", "sd2_clip.SD2ClipModel", 77, ("h", 0), True
    ),
    "SDXL": TextEncoder("sdxl_clip.SDXLTokenizer", "sdxl_clip.SDXLClipModel", 77, ("l", 0), True),
    "SDXL refiner": TextEncoder("sdxl_clip.SDXLTokenizer", "sdxl_clip.SDXLRefinerClipModel", 77, ("g", 0), True),
    "Stable Cascade": TextEncoder(
        "sdxl_clip.StableCascadeTokenizer", "sdxl_clip.StableCascadeClipModel", 77, ("g", 0), True
    ),
    "SD 3": TextEncoder(
        "sd3_clip.SD3Tokenizer", "sd3_clip.SD3ClipModel", 154, ("l", 0), True
    ),
    "Flux": TextEncoder(
        "flux.FluxTokenizer", "flux.FluxClipModel", 256, ("t5xxl", 0), True
    ),
    "Flux.2": TextEncoder(
        "flux.Flux2Tokenizer", "flux.Flux2TEModel", 57, ("mistral3_24b", 0), False, "stand-in"
    ),
    "Klein 4B": TextEncoder(
        "flux.KleinTokenizer", "flux.klein_te", 512, ("qwen3_4b", 0), False
    ),
    "Klein 8B": TextEncoder(
        "flux.KleinTokenizer8B", "flux.klein_te", 512, ("qwen3_8b", 0), False,
        options={"model_type": "qwen3_8b"},
    ),
    "Z-Image": TextEncoder(
        "z_image.ZImageTokenizer", "z_image.ZImageTEModel", 21, ("qwen3_4b", 0), False
    ),
    "Qwen-Image": TextEncoder(
        "qwen_image.QwenImageTokenizer", "qwen_image.QwenImageTEModel", 18,
        ("qwen25_7b", 34), False,
    ),
    "Krea 2": TextEncoder(
        "krea2.Krea2Tokenizer", "krea2.Krea2TEModel", 18, ("qwen3vl_4b", 34), False
    ),
    "Anima": TextEncoder("anima.AnimaTokenizer", "anima.AnimaTEModel", 8, ("t5xxl", 0), True),
    "Chroma, PixArt": TextEncoder(
        "pixart_t5.PixArtTokenizer", "pixart_t5.PixArtT5XXL", 10, ("t5xxl", 0), True
    ),
    "Ovis": TextEncoder("ovis.OvisTokenizer", "ovis.OvisTEModel", 256, ("qwen3_2b", 28), False),
    "Wan": TextEncoder(
        "wan.WanT5Tokenizer", "wan.WanT5Model", 512, ("umt5xxl", 0), True, "spiece"
    ),
    "Lumina 2": TextEncoder(
        "lumina2.LuminaTokenizer", "lumina2.LuminaModel", 21, ("gemma2_2b", 0), True, "spiece"
    ),
    "Gemma 3 4B": TextEncoder(
        "lumina2.NTokenizer", "lumina2.te", 27, ("gemma3_4b", 0), False, "spiece",
        {"model_type": "gemma3_4b"},
    ),
    "NewBie": TextEncoder(
        "newbie.NewBieTokenizer", "newbie.NewBieTEModel", 27, ("gemma", 0), False, "spiece"
    ),
    "Jina CLIP 2": TextEncoder(
        "jina_clip_2.JinaClip2TokenizerWrapper", "jina_clip_2.JinaClip2TextModelWrapper", 22,
        ("jina_clip_2", 0), True, "spiece",
    ),
    "AuraFlow": TextEncoder(
        "aura_t5.AuraT5Tokenizer", "aura_t5.AuraT5Model", 256, ("pile_t5xl", 0), True
    ),
    "Ideogram 4": TextEncoder(
        "ideogram4.Ideogram4Tokenizer", "ideogram4.Ideogram4TEModel", 21, ("qwen3vl_8b", 0),
        False,
    ),
    "Ideogram 4, with pictures": TextEncoder(
        "ideogram4.Ideogram4Qwen3VLTokenizer", "ideogram4.Ideogram4Qwen3VLTEModel", 21,
        ("qwen3vl_8b", 0), False,
    ),
    "Boogu": TextEncoder(
        "boogu.BooguTokenizer", "boogu.BooguTEModel", 44, ("qwen3vl_8b", 0), False
    ),
    "OmniGen 2": TextEncoder(
        "omnigen2.Omnigen2Tokenizer", "omnigen2.Omnigen2Model", 33, ("qwen25_3b", 0), True
    ),
    "Kandinsky 5 image": TextEncoder(
        "kandinsky5.Kandinsky5TokenizerImage", "kandinsky5.Kandinsky5TEModel", 14,
        ("qwen25_7b", 41), False,
    ),
    "Kandinsky 5 video": TextEncoder(
        "kandinsky5.Kandinsky5Tokenizer", "kandinsky5.Kandinsky5TEModel", 14,
        ("qwen25_7b", 127), False,
    ),
    "Ernie": TextEncoder(
        "ernie.ErnieTokenizer", "ernie.ErnieTEModel", 14, ("ministral3_3b", 0), False,
        "stand-in",
    ),
    "HunyuanDiT": TextEncoder(
        "hydit.HyditTokenizer", "hydit.HyditModel", 77, ("hydit_clip", 0), True, "spiece"
    ),
    "HiDream": TextEncoder(
        "hidream.HiDreamTokenizer", "hidream.HiDreamTEModel", 128, ("t5xxl", 0), True
    ),
    "HiDream-O1": TextEncoder(
        "hidream_o1.HiDreamO1Tokenizer", "hidream_o1.HiDreamO1TE", 23, ("hidream_o1", 0), False
    ),
    "Mage": TextEncoder(
        "mage_flow.MageFlowTokenizer", "mage_flow.MageFlowTEModel", 18, ("qwen3vl_4b", 34),
        False,
    ),
    "JoyImage": TextEncoder(
        "joyimage.JoyImageTokenizer", "joyimage.JoyImageTEModel", 20, ("qwen3vl_8b", 34), False
    ),
    "HunyuanImage": TextEncoder(
        "hunyuan_image.HunyuanImageTokenizer", "hunyuan_image.HunyuanImageTEModel", 14,
        ("qwen25_7b", 34), False,
    ),
    "HunyuanVideo": TextEncoder(
        "hunyuan_video.HunyuanVideoTokenizer", "hunyuan_video.HunyuanVideoClipModel", 9,
        ("llama", 95), True,
    ),
    "HunyuanVideo 1.5": TextEncoder(
        "hunyuan_video.HunyuanVideo15Tokenizer", "hunyuan_image.HunyuanImageTEModel", 18,
        ("qwen25_7b", 98), False,
    ),
    "LTX-Video": TextEncoder("lt.LTXVT5Tokenizer", "lt.ltxv_te", 128, ("t5xxl", 0), True),
    "Mochi": TextEncoder("genmo.MochiT5Tokenizer", "genmo.mochi_te", 256, ("t5xxl", 0), True),
    "CogVideoX": TextEncoder(
        "cogvideo.CogVideoXTokenizer", "cogvideo.CogVideoXT5XXL", 226, ("t5xxl", 0), True
    ),
    "Cosmos": TextEncoder(
        "cosmos.CosmosT5Tokenizer", "cosmos.CosmosT5XXL", 512, ("t5xxl", 0), True
    ),
    "PixelDiT": TextEncoder(
        "pixeldit.PixelDiTGemma2Tokenizer", "pixeldit.PixelDiTGemma2TE", 300,
        ("gemma2_2b", 0), False, "spiece",
    ),
    "Qwen3-VL": TextEncoder(
        "qwen3vl.Qwen3VLTokenizer", "qwen3vl.Qwen3VLTEModel", 25, ("qwen3vl_8b", 0), False
    ),
    "Qwen3.5": TextEncoder(
        "qwen35.Qwen35ImageTokenizer", "qwen35.Qwen35TEModel", 25, ("qwen35_2b", 0), False
    ),
}  # fmt: skip


def path_of(path: str) -> tuple[str, str]:
    """The host's module, and the name in it, of "flux.FluxTokenizer" or "sdxl_clip.SDXLTokenizer"."""
    module, _, name = path.partition(".")
    package = "comfy" if module in ("sd1_clip", "sdxl_clip") else "comfy.text_encoders"
    return f"{package}.{module}", name


def has(path: str) -> bool:
    """Whether this version of the host has the module of a class."""
    return importlib.util.find_spec(path_of(path)[0]) is not None


def host_class(path: str) -> Any:
    """A class, or function, of the host."""
    module, name = path_of(path)
    return getattr(importlib.import_module(module), name)


@cache
def trained_spiece() -> torch.Tensor:
    """A SentencePiece model of a few sentences, as checkpoints carry it."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20), model_writer=model, vocab_size=420, hard_vocab_limit=False,
        byte_fallback=True, pad_id=0, eos_id=1, unk_id=2, bos_id=3, minloglevel=2,
    )  # fmt: skip
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)


def stand_in(key: str) -> type:
    """Mistral's tokenizer with the words of Qwen's: it pads on the left and has no weights."""
    from transformers import Qwen2Tokenizer

    sd1_clip = importlib.import_module("comfy.sd1_clip")
    folder = importlib.import_module("comfy.text_encoders.qwen_image").__file__.removesuffix("qwen_image.py")

    class StandIn(sd1_clip.SDTokenizer):
        def __init__(self, embedding_directory=None, tokenizer_data=None):
            super().__init__(
                folder + "qwen25_tokenizer", pad_with_end=False, embedding_directory=embedding_directory,
                embedding_size=5120, embedding_key=key, tokenizer_class=Qwen2Tokenizer, has_start_token=False,
                has_end_token=False, pad_to_max_length=False, pad_token=151643, start_token=151644,
                max_length=99999999, min_length=1, pad_left=True, disable_weights=True,
            )  # fmt: skip

    return StandIn


def build_tokenizer(encoder: TextEncoder, embeddings: str | None = None) -> Any:
    """The host's tokenizer object."""
    data: dict[str, Any] = {}
    if encoder.data == "spiece":
        model = trained_spiece()
        data = dict.fromkeys(("spiece_model", "mt5xl.spiece_model", "gemma_spiece_model", "jina_spiece_model"), model)
    elif encoder.data == "stand-in":
        data = {f"{encoder.first[0]}_tokenizer_class": stand_in(encoder.first[0])}
    return host_class(encoder.tokenizer)(embedding_directory=embeddings, tokenizer_data=data)


def build_model(encoder: TextEncoder, device: str = "meta", **options: Any) -> torch.nn.Module:
    """The host's encoder. Its sizes may be given as `model_options`; on "meta" it has no weights."""
    made = host_class(encoder.model)
    made = made if isinstance(made, type) else made(**encoder.options)
    return made(device=device, dtype=torch.float32, **options).eval()


def host_clip(name: str, embeddings: str | None = None) -> Any:
    """The host's CLIP object of an encoder of ENCODERS, without weights."""
    clip = importlib.import_module("comfy.sd").CLIP(no_init=True)
    clip.tokenizer = build_tokenizer(ENCODERS[name], embeddings)
    clip.tokenizer_options = {}
    clip.cond_stage_model = build_model(ENCODERS[name])
    return clip
