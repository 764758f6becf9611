"""Where things lie in this repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
HOME = ROOT / ".comfyui"  # everything the test host needs; ignored by git, safe to delete
TOY_NODE = ROOT / "tests" / "tools" / "toy_world" / "comfyui_toy_model"
TOY_CHECKPOINT = ROOT / "tests" / "tools" / "toy_world" / "toy.safetensors"
TOY_TWO = TOY_CHECKPOINT.with_name("toy_two.safetensors")
TOY_TRANSFORMER = TOY_CHECKPOINT.with_name("toy_transformer.safetensors")


def toy_checkpoint() -> Path:
    """The trained toy checkpoint; FileNotFoundError that says how to get it when it is not there."""
    if not TOY_CHECKPOINT.is_file():
        raise FileNotFoundError(
            f"the toy checkpoint {TOY_CHECKPOINT} is missing: restore it with `git checkout -- tests/tools/toy_world`, "
            "or train it with `make toy` (90 minutes)"
        )
    return TOY_CHECKPOINT
