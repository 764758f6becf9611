"""The networks of ComfyUI that are known and whose attention cannot be read, and why.

The sentences follow the model's name in the error of `family.family_of`.
"""

from __future__ import annotations

_WAN = "this kind of Wan gives its attention further tokens (poses, sound, reference frames). Load Wan T2V"
# By the name of the network's class.
REFUSED: dict[str, str] = {
    # Networks of this class that have no layout.
    "HunyuanVideo": "HunyuanVideo 1.5 puts tokens of pictures in front of the text. Load HunyuanImage 2.1",
    "HiDreamImageTransformer2DModel": "two text encoders read each word, and ComfyUI gives one of them wrong tokens",
    "StageC": "the words of Stable Cascade do not reach it as the conditioning that samplers know",
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
