"""Other nodes' functions are named so that their user finds the node."""

import functools
import types

import pytest

from explainable_latents.nodes.host.patch_names import patch_name, patch_names


def function_of(module: str, name: str):
    function = types.FunctionType((lambda *_: None).__code__, {"__name__": module})
    function.__qualname__ = name
    return function


class Proxy:
    """A patch that is an object."""

    def __call__(self):
        return self.method

    def method(self):
        """A patch that is bound."""


HERE = "tests.host.test_patch_names"


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (
            function_of("/home/me/ComfyUI/custom_nodes/ComfyUI-ppm.src.couple", "wrapper.<locals>.attn2_patch"),
            "wrapper.attn2_patch of ComfyUI-ppm.src.couple",
        ),
        (function_of(r"C:\ComfyUI\custom_nodes\a_x_pack.nodes", "patch"), "patch of a.pack.nodes"),
        (function_of("comfy_extras.nodes_tomesd", "merge"), "merge of comfy_extras.nodes_tomesd"),
        (functools.partial(function_of("pack", "whole"), 1), "whole of pack"),
        (functools.wraps(function_of("pack", "inner"))(lambda: None), "inner of pack"),
        (Proxy(), f"Proxy of {HERE}"),
        (Proxy().method, f"Proxy.method of {HERE}"),
    ],
)
def test_a_patch_is_named_with_its_pack(patch, name):
    assert patch_name(patch) == name


def test_several_patches_are_named_once_each():
    one, other = function_of("pack", "one"), function_of("pack", "other")
    assert patch_names([one, other, one]) == "one of pack and other of pack"
