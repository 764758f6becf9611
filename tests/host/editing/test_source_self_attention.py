"""MasaCtrl and Plug-and-Play in the host, against self-attention whose probabilities are written down in float64."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
from explainable_latents.nodes.core.methods.prompt_to_prompt import PromptToPrompt, Window
from explainable_latents.nodes.core.words.alignment import Alignment
from explainable_latents.nodes.host.editing.mutual_self_attention import (
    InstalledMutualSelfAttention,
    MutualSelfAttentionEditor,
)
from explainable_latents.nodes.host.editing.plug_and_play import PlugAndPlayEditor
from explainable_latents.nodes.host.editing.prompt_to_prompt import PromptToPromptEditor
from explainable_latents.nodes.host.same_prompt import Encoded
from tests.host.editing.self_attention import (
    EDITORS,
    GRID,
    LATER,
    PLAY,
    WRITTEN_DOWN,
    features_of_the_source,
    masked,
    of_masks,
)
from tests.host.editing.twins import SOURCE, STEPS, TARGET, WRITTEN, relative, twin, written_down
from tests.host.patches import PATCHES
from tests.host.unets import SUBJECTS, random_unet, sample
from tests.tools.thorough import further

# Less than what the editors change here, relative to the largest number, and far more than rounding.
CHANGED = 1e-4
ALONE = ["MasaCtrl", "Plug-and-Play, features"]
WHOLE = ["MasaCtrl with masks", "Plug-and-Play, features"]  # each with all that the method does


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def expected_of(model, name: str, **how):
    written = twin(written_down(model, WRITTEN_DOWN[name]))
    if name != "Plug-and-Play, features":
        return sample(written, **how)
    with features_of_the_source(model):
        return sample(written, **how)


@pytest.mark.parametrize(
    ("name", "kind", "patch"),
    [
        *((name, "SD15", None) for name in EDITORS),
        *((name, kind, None) for name, kind in zip(ALONE, ("SD20", "SDXL"), strict=True)),
        *(("MasaCtrl with masks", "SD15", patch) for patch in ("LoRA", "attn2 patched")),
        *(("Plug-and-Play, features", "SD15", patch) for patch in ("attn2 replaced", "FreeU_V2")),
    ],
)
def test_the_latent_is_that_of_probabilities_written_down(model, name, kind, patch):
    """On a latent of odd size, of two pictures, for both prompts, beside what other nodes do."""
    used = model if kind == "SD15" else random_unet(kind)
    used = used if patch is None else PATCHES[patch](used)
    how = {"steps": STEPS, "batch": 2, "grid": GRID}
    result = sample(twin(used, EDITORS[name]), **how)
    expected = expected_of(used, name, **how)
    assert relative(result, expected) < WRITTEN
    # most of the latent is noise: the difference is small against what the editor changes, too
    assert (result - expected).abs().max() < 0.02 * (sample(twin(used), **how) - expected).abs().max()


@pytest.mark.parametrize("name", EDITORS)
def test_outside_its_steps_and_layers_the_run_is_the_one_without_editor_bit_for_bit(model, name):
    how = {"batch": 2, "grid": GRID}
    never = Window(1.0, 1.0)
    off = EDITORS[name]
    off = replace(off, method=MutualSelfAttention(never) if "MasaCtrl" in name else PlugAndPlay(never, Window(0, 0)))
    plain = sample(twin(model), **how)
    assert torch.equal(sample(twin(model, off), **how), plain)
    if name == "MasaCtrl":

        class NoLayers:
            def installed(self, patcher, source):
                return InstalledMutualSelfAttention(LATER, frozenset())

        assert torch.equal(sample(twin(model, NoLayers()), **how), plain)


@pytest.mark.parametrize("name", [name for name in EDITORS if "masks" not in name])
def test_equal_prompts_give_the_source_bit_for_bit(model, name):
    seen: list = []
    sample(twin(model, EDITORS[name], note=seen), positive=SOURCE, batch=2)
    assert all(torch.equal(x[:2], x[2:]) for x in seen)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_source_keeps_its_bits_under_every_editor(comfy, dtype):
    """Three pictures; masks are one for all."""
    model, plain = random_unet(dtype=dtype), []
    sample(twin(model, note=plain), batch=3, grid=GRID)
    one = [ImageMasking(each[:1]) for each in of_masks()]
    editors = {**EDITORS, "MasaCtrl with masks": MutualSelfAttentionEditor(LATER, "auto", *one)}
    for name in EDITORS if dtype == torch.float32 else ALONE:
        seen: list = []
        result = sample(twin(model, editors[name], note=seen), batch=3, grid=GRID)
        assert result.isfinite().all()
        assert all(torch.equal(a[:3], b[:3]) for a, b in zip(seen, plain, strict=True))
        assert not torch.equal(seen[-1][3:], plain[-1][3:])


def test_masks_of_attention_are_of_either_picture_and_come_from_the_call_before(model):
    """The same latent as with the masks that a capture of either picture sees."""
    shaping = Shaping("min-max", 0.4)
    masking = AttentionMasking(SUBJECTS.with_role("subject"), shaping)
    seen: list = []

    class Watched(MutualSelfAttentionEditor):
        def installed(self, patcher, source):
            found = super().installed(patcher, source)

            class Watching:
                def __init__(self, mask):
                    self.mask = mask

                def known(self, x):
                    seen.append(self.mask.known(x))
                    return seen[-1]

            return replace(found, masks=[Watching(mask) for mask in found.masks])

    result = sample(twin(model, Watched(LATER, "auto", masking, masking)), batch=2)
    source, target = seen[0], seen[1]
    assert source.shape == target.shape == (2, 16, 16)
    assert not torch.equal(source, target)
    assert relative(result, sample(twin(model, EDITORS["MasaCtrl"]), batch=2)) > CHANGED
    first = MutualSelfAttentionEditor(MutualSelfAttention(Window(0.0, 0.34)), "auto", masking, masking)
    unmasked = replace(first, target=None, source=None)
    # before the first model call no mask is known
    assert torch.equal(sample(twin(model, first), batch=2), sample(twin(model, unmasked), batch=2))


@pytest.mark.parametrize("name", WHOLE)
def test_attention_that_another_node_changed_is_left_alone_with_one_warning(model, caplog, name):
    patched = PATCHES["ToMe"](model)
    editor = masked((16, 16)) if "masks" in name else EDITORS[name]
    with caplog.at_level("WARNING", "explainable_latents"):
        sample(twin(patched, editor), batch=2)
    told = [record.getMessage() for record in caplog.records if "leaves self-attention" in record.getMessage()]
    assert 1 <= len(told) == len(set(told)) <= 4


def prompt_to_prompt(coarser: int) -> PromptToPromptEditor:
    same = Alignment((77, 77), tuple((i, i, 1.0) for i in range(77)))
    method = PromptToPrompt(same, Window(0, 0), {}, {}, Window(0, 1.0), coarser)
    return PromptToPromptEditor(
        method, [("old", Encoded((SOURCE[0][0],), {})), ("new", Encoded((TARGET[0][0],), {}))], ""
    )


def test_editors_of_the_same_layers_are_refused_and_of_others_compose(model):
    """Prompt-to-Prompt takes the coarse layers, of which MasaCtrl leaves output.0 and output.1 to it."""
    fine = MutualSelfAttentionEditor(LATER, "output.2, output.3")
    both = sample(twin(model, prompt_to_prompt(2), fine))
    for one in (prompt_to_prompt(2), fine):
        assert relative(sample(twin(model, one)), both) > CHANGED
    with pytest.raises(ValueError, match=r"edit self-attention of the same prompt at step 1 of 3, in output\.0\.0"):
        sample(twin(model, prompt_to_prompt(2), EDITORS["MasaCtrl"]))
    with pytest.raises(ValueError, match="MasaCtrl and Plug-and-Play both edit self-attention"):
        sample(twin(model, EDITORS["MasaCtrl"], EDITORS["Plug-and-Play"]))


@pytest.mark.parametrize("name", ["Prompt-to-Prompt", *map(further, ALONE)])
def test_a_compiled_model_is_edited_like_the_model(model, name):
    compiling = importlib.import_module("comfy_extras.nodes_torch_compile").TorchCompileModel
    compiled = compiling.execute(model, "eager")[0]
    editor = prompt_to_prompt(1) if name == "Prompt-to-Prompt" else EDITORS[name]
    torch.compiler.reset()
    with torch.inference_mode():
        expected = sample(twin(model, editor), cfg=1.0)
        assert torch.equal(sample(twin(compiled, editor), cfg=1.0), expected)
        assert not torch.equal(sample(twin(model), cfg=1.0), expected)
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MutualSelfAttentionEditor(LATER, "output.9"), "no self-attention layer is called 'output.9'"),
        (lambda: MutualSelfAttentionEditor(LATER, "16x16"), "takes layers by name, and no grids"),
        (lambda: MutualSelfAttentionEditor(LATER, "auto", masked().target), "has masking, but not source_masking"),
        (
            lambda: MutualSelfAttentionEditor(LATER, "auto", *[GradientMasking(SUBJECTS, Shaping())] * 2),
            "Abs-Grad-SAM would take a model call",
        ),
        (lambda: PlugAndPlayEditor(PLAY, "auto", "output.9"), "feature_block 'output.9' is not one of auto, output.0"),
        (lambda: PlugAndPlayEditor(PLAY, "all, none"), "no self-attention layer is called 'none'"),
    ],
)
def test_mistakes_are_named_before_anything_runs(model, make, message):
    with pytest.raises(ValueError, match=message):
        twin(model, make())
