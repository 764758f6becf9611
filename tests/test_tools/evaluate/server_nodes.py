"""A node for the test server that holds a run of one prompt, so that tests can stop things in the middle of it."""

import time
from pathlib import Path

import comfy.model_management
import folder_paths


class EvaluateGate:
    """Hands a picture on, but not while the file `closed` in the input folder holds its prompt, or a *."""

    CATEGORY = "tests"
    FUNCTION = "execute"
    RETURN_TYPES = ("IMAGE",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "prompt": ("STRING", {"forceInput": True})}}

    def execute(self, image, prompt):
        closed = Path(folder_paths.get_input_directory()) / "closed"
        while closed.is_file() and closed.read_text() in (prompt, "*"):
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.05)
        return (image,)


NODE_CLASS_MAPPINGS = {"EvaluateGate": EvaluateGate}
