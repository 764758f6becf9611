"""Twin sampling: any sampler makes a source picture beside each picture that the user asked for, in the same batch.

The user's graph keeps one latent, one prompt and its sampler node. Everything is installed through the host's wrappers:

  OUTER_SAMPLE      the source prompt joins the guider's lists, so that the host prepares it like the others
  PREPARE_SAMPLING  memory is asked for all pictures
  SAMPLER_SAMPLE    the innermost one: noise, latent and mask are doubled here, and halved again behind the sampler, so
                    that all other wrappers and nodes see the run as the user made it
  PREDICT_NOISE     one model call of the sampler: its step; a noised or recorded source is put into its rows
  CALC_COND_BATCH   which of the guider's lists is the positive one
  APPLY_MODEL       the network itself: the editors' processors run at its attention sites

Nothing is kept from step to step: an attention layer has both in one call. An editor may bring a third (`appearance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ...core.methods.trajectory import Trajectory
from ..attention.model_call import ASIDE, OURS
from ..attention.override import processing
from ..attention.twin_blocks import APPEARANCE, SOURCE, TARGET, TWIN_KEY, TwinBlocks, announced
from ..compiled import as_written, hidden_by_compilation, uncompiled
from ..families.family import Family, family_of
from ..families.offers import EDITING
from ..families.sites import NetworkCall
from ..patch_names import patch_name
from ..sampling.changed_sampler import FOLLOW_THE_SCHEDULER, ChangedSampler
from ..sampling.recorded_path import start_on_path
from ..sampling.trial import Trial
from .appearance import appearance_of
from .editors import Editor
from .local_blend import LocalBlend
from .paths import GENERATED, RECORDED, Path
from .twin_run import TwinRun, blocks_of, of_target, repeated
from .twin_texts import OWN_LISTS, check_guider, joined, own_list

START_KEY = OURS + "twin_start"


@dataclass(frozen=True)
class Twin:
    """What is sampled beside the user's pictures.

    source: the CONDITIONING of the source prompt. editors: what the target takes over, in their order. path, reference,
    trajectory: what the source is at each noise level, see `Path`; where it is recorded the target starts from the same
    state, unless `own_start`. negative: the source's own negative prompt; None: the target's. blend: what of the source
    is put into the target after each step. Raises ValueError as `Path` and `own_list`.
    """

    source: list
    editors: Sequence[Editor] = ()
    path: str = GENERATED
    reference: Tensor | None = None
    negative: list | None = None
    blend: LocalBlend | None = None
    trajectory: Trajectory | None = None
    own_start: bool = False

    def __post_init__(self) -> None:
        self.lists()
        self.way()

    def way(self) -> Path:
        """What the source is at each noise level."""
        return Path(self.path, self.reference, self.trajectory)

    def lists(self) -> dict[str, list[dict]]:
        """The source's prompts as a guider keeps them, by their names in `OWN_LISTS`."""
        given = {"positive": self.source, "negative": self.negative}
        return {OWN_LISTS[name][SOURCE]: own_list(each) for name, each in given.items() if each is not None}

    def install(self, patcher: ModelPatcher) -> None:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) a twin run.

        Raises ValueError for a model that no family knows, where the model has a twin already, and as the editors.
        """
        if patcher.get_wrappers(WrappersMP.OUTER_SAMPLE, TWIN_KEY):
            raise ValueError(
                "the model has a Twin Sampling already: chain the editors, and connect them to one Twin Sampling"
            )
        family = family_of(patcher, EDITING)
        editors = [each.installed(patcher, self.source) for each in self.editors]
        sampling = _TwinSampling(replace(self, editors=editors), family)
        for kind, wrapper in (
            (WrappersMP.OUTER_SAMPLE, sampling.around_run),
            (WrappersMP.PREPARE_SAMPLING, sampling.around_loading),
            (WrappersMP.SAMPLER_SAMPLE, sampling.around_sampler),
            (WrappersMP.PREDICT_NOISE, sampling.around_step),
            (WrappersMP.CALC_COND_BATCH, sampling.around_batch),
            (WrappersMP.APPLY_MODEL, sampling.around_model),
        ):
            patcher.add_wrapper_with_key(kind, TWIN_KEY, wrapper)
        if self.path == RECORDED and not self.own_start:
            start_on_path(patcher, START_KEY, self.trajectory)
        if APPEARANCE in sampling.names:
            sampling.appearance.give_statistics(patcher, sampling.state_of)
        if self.blend is not None:
            self.blend.install(patcher, self.source, sampling.state_of)


class _TwinSampling:
    """What is installed on the model. appearance: the editor that brings a picture. names: of the blocks."""

    def __init__(self, twin: Twin, family: Family) -> None:
        self.appearance = appearance_of(twin.editors)
        self.names = blocks_of(self.appearance)
        self._twin = twin
        self._family = family
        self._run: TwinRun | None = None

    def state_of(self, block: str, x: Tensor, sigma: Tensor) -> tuple[TwinBlocks, Tensor]:
        """While a sampler runs: its blocks, and the state of one for its own `x` at a noise level."""
        return self._run.blocks, self._run.state_of(block, x, sigma)

    def around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper; `executor.class_obj` is the guider."""
        guider = executor.class_obj
        check_guider(guider)
        guider.conds.update(self._twin.lists())
        if APPEARANCE in self.names:
            guider.conds[OWN_LISTS["positive"][APPEARANCE]] = own_list(self.appearance.picture.prompt, APPEARANCE)
        return executor(*args, **kwargs)

    def around_loading(
        self, executor: WrapperExecutor, model: ModelPatcher, noise_shape: Sequence[int], *args: Any, **kwargs: Any
    ) -> tuple:
        """PREPARE_SAMPLING wrapper: ask the host to reserve memory for all blocks."""
        return executor(model, [len(self.names) * noise_shape[0], *noise_shape[1:]], *args, **kwargs)

    def around_sampler(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """SAMPLER_SAMPLE wrapper: take the innermost place, whatever order the nodes are in."""
        wrappers = [*executor.wrappers[executor.idx + 1 :], self._sample]
        inner = WrapperExecutor.new_class_executor(executor.original, executor.class_obj, wrappers, 0)
        return inner.execute(*args, **kwargs)

    def _sample(
        self,
        executor: WrapperExecutor,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Sample all blocks and return the target's."""
        before, outer = guider.conds, self._run
        conds, texts = dict(before), {}
        for name, lists in OWN_LISTS.items():
            own = {block: conds.pop(theirs) for block, theirs in lists.items() if theirs in conds}
            if own and conds.get(name):
                conds[name], found = joined(conds[name], own, self.names, len(noise))
                texts |= found if name == "positive" else {}
        self._require_steps(executor.class_obj, guider, sigmas, extra_args, noise)
        guider.conds = conds
        try:
            seed = extra_args.get("seed")
            self._run = run = TwinRun(self._twin, self.appearance, guider, noise, seed, sigmas, texts)
            extra_args = {**extra_args, "model_options": announced(extra_args["model_options"], run.blocks)}
            every = [repeated(each, len(noise), len(self.names)) for each in (noise, latent_image, denoise_mask)]
            see = of_target(callback, run.blocks)
            with run.noise:
                samples = executor(guider, sigmas, extra_args, see, *every, *args, **kwargs)
            return samples[run.blocks.rows(TARGET)]
        finally:
            guider.conds, self._run = before, outer

    def around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper."""
        run = self._run
        if run is None:
            return executor(x, timestep, model_options, *args, **kwargs)
        with run.noise.paused():
            x = run.begin_call(x, timestep, model_options)
            return run.end_call(executor(x, timestep, model_options, *args, **kwargs))

    def around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list; another node may evaluate a changed copy of it."""
        if self._run is not None:
            own = [cond["uuid"] for cond in self._run.positive]
            self._run.positives = {i for i, each in enumerate(conds) if each and [c.get("uuid") for c in each] == own}
        return executor(model, conds, *args, **kwargs)

    def around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **conds: Any,
    ) -> Tensor:
        """APPLY_MODEL wrapper: edit the attention of this call. One that is made for a mask is left alone."""
        run, processors = self._run, []
        if run is not None and run.step is not None and ASIDE not in transformer_options:
            call = run.call(x, c_crossattn, transformer_options)
            for editor, chosen in zip(self._twin.editors, run.chosen, strict=True) if call else ():
                processors += editor.processors(run.seen_by(editor, call), chosen)
        if not processors:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        network = as_written(executor.class_obj.diffusion_model)
        called = NetworkCall(network, x.shape, c_crossattn.shape[1])
        with ExitStack() as around:
            around.enter_context(uncompiled())
            options = around.enter_context(processing(transformer_options, self._family, processors, called))
            for each in processors:
                around.enter_context(each.during(network))
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        for each in processors:
            each.finish(network)
        return out

    def _require_steps(self, sampler: Any, guider: Any, sigmas: Tensor, extra_args: dict, noise: Tensor) -> None:
        """Raise ValueError for a sampler that chooses its own steps, and for a compiled model that hides attention."""
        compiled = TORCH_COMPILE_KWARGS in extra_args["model_options"]
        if compiled and not hasattr(torch.compiler, "set_stance") and self._twin.editors:
            raise ValueError(hidden_by_compilation())
        function = getattr(sampler, "sampler_function", None)
        if isinstance(function, ChangedSampler):  # it looks for itself
            return
        model, seed = comfy.samplers.KSamplerX0Inpaint(guider, sigmas), extra_args.get("seed")
        options = getattr(sampler, "extra_options", {})
        if function is None or not Trial(function, model, noise, sigmas, seed, options).follows_schedule():
            name = type(sampler).__name__ if function is None else patch_name(function)
            raise ValueError(
                f"the sampler {name} chooses its own steps, by source and target together, so neither would be the "
                f"picture of a run of its own. {FOLLOW_THE_SCHEDULER}"
            )
