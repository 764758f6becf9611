"""What the small transformers attend to, from the outputs of their own modules: softmax in float64, rope written anew.

Nothing of the pack takes part, nor the host's attention function. Of the less used networks it is read from that
function instead: with one-hot values it puts out its probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attended:
    """P over all keys, float64: of places to the tokens [B,H,N,T], if joint to places [B,H,N,N]."""

    text: Tensor
    picture: Tensor | None


Outputs = dict[str, Any]


@contextmanager
def attending(name: str, model: Any, tokens: int, places: int) -> Iterator[dict[str, Attended]]:
    """What the first call of the network in this block attends to, by layer, when the block ends.

    tokens: T of the prompt. places: N of the picture.
    """
    network, got, found = model.model.diffusion_model, {}, {}
    if name in _KERNEL:
        with _one_hot(model, *_KERNEL[name], tokens, places, found):
            yield found
        return
    modules, read = _ORACLES[name]
    handles = []
    for place, module in network.named_modules():
        if place.rpartition(".")[2] in modules:

            def keep(module: Any, args: Any, out: Any, place: str = place) -> None:
                got.setdefault(place, []).append(out)
                got.setdefault(f"{place} is given", []).append(args)

            handles.append(module.register_forward_hook(keep))
    try:
        yield found
        found |= read(network, got, tokens, places)
    finally:
        for handle in handles:
            handle.remove()


def _softmax(q: Tensor, k: Tensor) -> Tensor:
    q, k = q.double(), k.double()
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1)


def _turned(x: Tensor, pe: Tensor) -> Tensor:
    """Rotary positions: pairs of neighbouring channels x [B,H,L,d] are turned by pe [B,1,L,d/2,2,2]."""
    pairs = x.double().unflatten(-1, (-1, 2)).unsqueeze(-2)
    return (pe.double() * pairs).sum(-1).flatten(-2)


def _joint(q: Tensor, k: Tensor, text: int, tokens: int, picture: int, places: int) -> Attended:
    """q, k: [B,H,L,d]. text, picture: where the tokens and the places begin."""
    p = _softmax(q[:, :, picture : picture + places], k)
    return Attended(p[..., text : text + tokens], p[..., picture : picture + places])


def _flux(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    (pe,) = got["pe_embedder"]
    length = got["double_blocks.0.txt_attn.norm"][0][0].shape[2]
    at = (length - tokens, tokens, length, places)
    found = {}
    for i in range(len(network.double_blocks)):
        (text,), (picture,) = (got[f"double_blocks.{i}.{each}_attn.norm"] for each in ("txt", "img"))
        q, k = (_turned(torch.cat(each, dim=2), pe) for each in zip(text, picture, strict=True))
        found[f"double.{i}"] = _joint(q, k, *at)
    for i in range(len(network.single_blocks)):
        ((q, k),) = got[f"single_blocks.{i}.norm"]
        found[f"single.{i}"] = _joint(_turned(q, pe), _turned(k, pe), *at)
    return found


def _qwen(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    (pe,), found = got["pe_embedder"], {}
    for i in range(len(network.transformer_blocks)):
        at = f"transformer_blocks.{i}.attn."
        q, k = (_turned(torch.cat([got[f"{at}norm_added_{n}"][0], got[f"{at}norm_{n}"][0]], dim=2), pe) for n in "qk")
        found[f"double.{i}"] = _joint(q, k, 0, tokens, tokens, places)
    return found


def _krea(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    (pe,), found = got["pe_embedder"], {}
    for i in range(len(network.blocks)):
        ((q, k),) = got[f"blocks.{i}.attn.qknorm"]
        found[f"single.{i}"] = _joint(_turned(q, pe), _turned(k, pe), 0, tokens, tokens, places)
    return found


def _sd3(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    found = {}
    for i in range(len(network.joint_blocks)):
        text, picture = (f"joint_blocks.{i}.{each}_block.attn.ln_" for each in ("context", "x"))
        q, k = (torch.cat([got[text + n][0], got[picture + n][0]], dim=1).transpose(1, 2) for n in "qk")
        found[f"joint.{i}"] = _joint(q, k, 0, tokens, tokens, places)
    return found


def _aura(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    found, at = {}, (8, tokens, 8 + tokens, places)
    for i in range(len(network.double_layers)):
        name = f"double_layers.{i}.attn."
        q, k = (torch.cat([got[f"{name}{n}_norm{j}"][0] for j in "12"], dim=1).transpose(1, 2) for n in "qk")
        found[f"double.{i}"] = _joint(q, k, *at)
    for i in range(len(network.single_layers)):
        q, k = (got[f"single_layers.{i}.attn.{n}_norm1"][0].transpose(1, 2) for n in "qk")
        found[f"single.{i}"] = _joint(q, k, *at)
    return found


def _lumina(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    """The host applies the norms' weights without calling the modules."""
    unit = network.pad_tokens_multiple or 1
    length, found = -(-tokens // unit) * unit, {}
    pe = torch.cat(got["rope_embedder"], dim=2)
    # the host makes the rope of text and picture without what pads the picture's length
    for i, layer in enumerate(network.layers):
        each = layer.attention
        heads, of_keys, d = each.n_local_heads, each.n_local_kv_heads, each.head_dim
        q, k, _ = got[f"layers.{i}.attention.qkv"][0].double().split([heads * d, of_keys * d, of_keys * d], dim=-1)
        turned = []
        for x, norm in ((q, each.q_norm), (k, each.k_norm)):
            x = x.unflatten(-1, (-1, d)).transpose(1, 2)
            eps = torch.finfo(torch.float32).eps if norm.eps is None else norm.eps
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * norm.weight.double()
            turned.append(_turned(x, pe))
        found[f"double.{i}"] = _joint(*turned, 0, tokens, length, places)
    return found


def _across(attribute: str, part: str, norms: str, by_channel: bool) -> Callable[..., dict[str, Attended]]:
    """Cross-attention: `norms` with {} for q and k; by_channel: they norm all heads at once, [B,L,H*d]."""

    def read(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
        found = {}
        for i in range(len(getattr(network, attribute))):
            q, k = (got[f"{attribute}.{i}.cross_attn.{norms.format(n)}"][0] for n in "qk")
            if by_channel:
                q, k = (each.unflatten(-1, (network.num_heads, -1)) for each in (q, k))
            q, k = (each.flatten(1, -3).transpose(1, 2) for each in (q, k))
            found[f"{part}.{i}"] = Attended(_softmax(q, k)[..., :tokens], None)
        return found

    return read


@contextmanager
def _one_hot(
    model: Any, names: tuple[str, ...], order: str, tokens: int, places: int, found: dict[str, Attended]
) -> Iterator[None]:
    """Fills `found` for the layers `names`, whose attention has text and picture in this `order`."""
    across = order == "text"
    length = tokens if across else tokens + places
    text, picture = (places, 0) if order == "picture, text" else (0, 0 if across else tokens)
    queries = places if across else length
    if order == "end of text, picture":  # the rest of the text has keys only
        queries, at = places + 1, slice(1, places + 1)
    else:
        at = slice(picture, picture + places)
    options = model.model_options["transformer_options"]

    def override(
        attention: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int = 0, *args: Any, **how: Any
    ) -> Tensor:
        by_head = how.get("skip_reshape", False)
        if (q.shape[-2], k.shape[-2]) == (queries, length) and len(found) < len(names):
            d, parts = v.shape[-1] if by_head else v.shape[-1] // heads, []
            for first in range(0, length, d):
                values = torch.zeros_like(v) if by_head else torch.zeros_like(v).unflatten(-1, (-1, d)).transpose(1, 2)
                some = torch.arange(min(d, length - first))
                values[:, :, first + some, some] = 1.0
                values = values if by_head else values.transpose(1, 2).flatten(2)
                out = attention(q, k, values, heads, *args, **how)
                out = out if out.ndim == 4 else out.unflatten(-1, (heads, -1)).transpose(1, 2)
                parts.append(out[..., : len(some)])
            p = torch.cat(parts, dim=-1).double()[:, :, at]
            of_picture = None if across else p[..., picture : picture + places]
            found[names[len(found)]] = Attended(p[..., text : text + tokens], of_picture)
        return attention(q, k, v, heads, *args, **how)

    options["optimized_attention_override"] = override
    try:
        yield
    finally:
        del options["optimized_attention_override"]


# Those that are read by the kernel: their layers, and what stands where in their attention.
_KERNEL: dict[str, tuple[tuple[str, ...], str]] = {
    "Chroma Radiance": (("double.0", "double.1", "single.0", "single.1"), "text, picture"),
    "Kandinsky 5": (("double.0", "double.1"), "text"),
    "OmniGen 2": (("joint.0", "joint.1"), "text, picture"),
    "Boogu": (("double.0", "single.0"), "text, picture"),
    "Ideogram 4": (("joint.0", "joint.1"), "text, picture"),
    "Mage-Flow": (("double.0", "double.1"), "text, picture"),
    "JoyImage": (("double.0", "double.1"), "picture, text"),
    "Lens": (("double.0", "double.1"), "picture, text"),
    "HunyuanImage 2.1": (("double.0", "single.0"), "text, picture"),
    "HiDream-O1": (("double.0", "double.1"), "end of text, picture"),
    "PixelDiT": (("joint.0", "joint.1"), "text, picture"),
}


def _ernie(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    """Its rotary positions turn the first half of a head's channels with the second."""
    pe, found = got["pos_embed"][0].double().movedim(2, 1), {}
    for i, layer in enumerate(network.layers):
        each, turned = layer.self_attention, []
        for name, norm in (("to_q", each.norm_q), ("to_k", each.norm_k)):
            x = got[f"layers.{i}.self_attention.{name}"][0].double().unflatten(-1, (each.heads, -1)).transpose(1, 2)
            x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps) * norm.weight.double()
            halves = torch.stack(x.chunk(2, dim=-1), dim=-1).unsqueeze(-2)
            turned.append((pe * halves).sum(-1).transpose(-1, -2).flatten(-2))
        found[f"joint.{i}"] = _joint(*turned, places, tokens, 0, places)
    return found


def _pixart(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    found = {}
    for i, block in enumerate(network.blocks):
        heads = block.cross_attn.num_heads
        q, k = (got[f"blocks.{i}.cross_attn.{name}"][0] for name in ("q_linear", "kv_linear"))
        k = k[..., : k.shape[-1] // 2].reshape(1, tokens, -1)
        q, k = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k))
        found[f"cross.{i}"] = Attended(_softmax(q, k), None)
    return found


def _hunyuan_dit(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    """Its rotary positions (cosines and sines [N,d]) turn queries alone. Behind the text stand 256 keys of another."""
    found = {}
    for i in range(len(network.blocks)):
        at = f"blocks.{i}.attn2"
        q, k = (got[f"{at}.{n}_norm"][0].double().transpose(1, 2) for n in "qk")
        cosines, sines = (each.double() for each in got[f"{at} is given"][0][2])
        first, second = q.unflatten(-1, (-1, 2)).unbind(-1)
        q = q * cosines + torch.stack([-second, first], dim=-1).flatten(-2) * sines
        assert k.shape[2] == tokens + 256
        found[f"cross.{i}"] = Attended(_softmax(q, k)[..., :tokens], None)
    return found


def _ltxv(network: Any, got: Outputs, tokens: int, places: int) -> dict[str, Attended]:
    found = {}
    for i in range(len(network.transformer_blocks)):
        q, k = (got[f"transformer_blocks.{i}.attn2.{n}_norm"][0] for n in "qk")
        q, k = (each.unflatten(-1, (network.num_attention_heads, -1)).transpose(1, 2) for each in (q, k))
        found[f"block.{i}"] = Attended(_softmax(q, k), None)
    return found


# The last names of the modules whose outputs count, and what makes attention of them.
_FLUX_LIKE = (("norm", "pe_embedder"), _flux)
_BY_HEAD = (("q_norm", "k_norm"), _across("blocks", "block", "{}_norm", by_channel=False))
_BY_CHANNEL = (("norm_q", "norm_k"), _across("blocks", "double", "norm_{}", by_channel=True))
_ORACLES: dict[str, tuple[tuple[str, ...], Callable[..., dict[str, Attended]]]] = {
    "Qwen-Image": (("norm_q", "norm_k", "norm_added_q", "norm_added_k", "pe_embedder"), _qwen),
    "Flux.1": _FLUX_LIKE,
    "Flux.2": _FLUX_LIKE,
    "LongCat": _FLUX_LIKE,
    "Chroma": _FLUX_LIKE,
    "SD 3.5": (("ln_q", "ln_k"), _sd3),
    "Lumina 2": (("qkv", "rope_embedder"), _lumina),
    "Z-Image": (("qkv", "rope_embedder"), _lumina),
    "Krea 2": (("qknorm", "pe_embedder"), _krea),
    "Predict2": _BY_HEAD,
    "Anima": _BY_HEAD,
    "Wan": _BY_CHANNEL,
    "Wan I2V": _BY_CHANNEL,
    "AuraFlow": (("q_norm1", "k_norm1", "q_norm2", "k_norm2"), _aura),
    "Ernie-Image": (("to_q", "to_k", "pos_embed"), _ernie),
    "PixArt": (("q_linear", "kv_linear"), _pixart),
    "HunyuanDiT": (("q_norm", "k_norm", "attn2"), _hunyuan_dit),
    "LTX-Video": (("q_norm", "k_norm"), _ltxv),
}
