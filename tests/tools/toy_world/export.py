"""Write trained parts as the two committed files.

`toy.safetensors` (ComfyUI's checkpoint layout) and `judge.safetensors`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..comfyui.command import whole_file
from .modules import TextEncoder
from .vocabulary import Vocabulary

State = dict[str, Tensor]


def checkpoint(unet: State, text: State, vae: State, vocabulary: Vocabulary) -> State:
    """Return one state dict under ComfyUI's names: fp16, except the autoencoder's two scalars and the token ids."""
    encoder = TextEncoder(vocabulary.rows)
    encoder.load_state_dict(text)
    state = {f"model.diffusion_model.{k}": v.half() for k, v in unet.items()}
    state |= {f"cond_stage_model.transformer.{k}": v.half() for k, v in encoder.host_state_dict().items()}
    state["cond_stage_model.token_ids"] = torch.tensor(vocabulary.token_ids, dtype=torch.int32)
    for name, value in vae.items():
        state[f"first_stage_model.{name}"] = value.float() if value.ndim == 0 else value.half()
    return {k: v.cpu().contiguous() for k, v in state.items()}


def save_checkpoint(out: Path, unet: State, text: State, vae: State, judge: State, vocabulary: Vocabulary) -> None:
    """Write both files to the folder `out`, whole or not at all."""
    files = {
        "toy.safetensors": checkpoint(unet, text, vae, vocabulary),
        "judge.safetensors": {k: v.half().cpu().contiguous() for k, v in judge.items()},
    }
    for name, state in files.items():
        with whole_file(out / name) as part:
            save_file(state, part, metadata={"license": "GPL-3.0", "source": "tests/tools/toy_world/train.py"})
