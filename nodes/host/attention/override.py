"""The one override of a network's attention during one model call, whatever else is installed there.

Several captures, maskings and gradients on one model share it: each adds its processors. It calls other nodes'
overrides and replacements of attention, or is called by those that were installed later.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...core.attention.heads import by_head, joined
from ...core.gradients.definition import attention_change
from ..families.family import Family, SiteFinder
from ..families.sites import NetworkCall, Shape
from ..patch_names import patch_name
from .attention_call import AttentionCall, Processor, mask_of_rows
from .model_call import OURS

# In transformer_options: the override of this model call, to which further processors can be added.
_SHARED = OURS + "override"

_HOSTS = "optimized_attention_override"


@contextmanager
def processing(options: dict, family: Family, processors: Sequence[Processor], called: NetworkCall) -> Iterator[dict]:
    """Yield transformer options with which one model call has these processors at its attention sites.

    Observers see every call as the network made it. Editors edit one after the other in the order in which they were
    added, which is that of the nodes. options: the model call's own; they are not changed. called: what the network is
    called with.
    """
    override = options.get(_SHARED) or AttentionOverride(family.finder(called))
    override.processors += processors
    try:
        yield override.install(options)
    finally:
        override.leave(processors)


class AttentionOverride:
    """See `processing`."""

    def __init__(self, finder: SiteFinder) -> None:
        self.processors: list[Processor] = []
        self._finder = finder
        self._installed: list[Callable] = []

    def install(self, options: dict) -> dict:
        """A copy of the transformer options with the override outermost; what is installed there stays in effect."""
        kinds = {kind for each in self.processors for kind in each.kinds}
        options = {**self._finder.install(options, kinds, self), _SHARED: self}
        previous = options.get(_HOSTS)
        if not any(previous is each for each in self._installed):
            options[_HOSTS] = _around(self._override(previous), previous)
            self._installed.append(options[_HOSTS])
        return options

    def leave(self, processors: Sequence[Processor]) -> None:
        """Remove processors; with the last one, forget all tensors of the model call."""
        self.processors = [each for each in self.processors if not any(each is gone for gone in processors)]
        if not self.processors:
            self._finder.forget()

    def around(self, replacement: Callable) -> Callable:
        """See `Listener`."""

        def replaced(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, *args: Any, **kwargs: Any) -> Tensor:
            # What the replacement itself computes through the host's attention is not processed a second time.
            shape = Shape(len(q), q.shape[1], k.shape[1], extra_options["n_heads"])
            found = self._finder.take(extra_options, shape)

            def compute(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                return replacement(q, k, v, extra_options, *args, **kwargs)

            compute = self._foreign(replacement, compute)
            if found is None:
                return compute(q, k, v)
            site, inputs = found
            return self._processed(AttentionCall(site, q, k, v, inputs=inputs), compute, replacement)

        return _around(replaced, replacement)

    def beside(self, attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """See `Listener`."""
        return self._override(None)(attention, q, k, v, *args, **kwargs)

    def mixed(self, name: str, out: Tensor, mixed: Tensor) -> None:
        """See `Listener`."""
        for each in self.processors:
            each.mixed(name, out, mixed)

    def _override(self, previous: Callable | None) -> Callable:
        def override(attention: Callable, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            for each in self.processors:
                attention = each.backend(attention)
            own = args[1] if len(args) > 1 else kwargs.get("mask")

            def with_mask(compute: Callable, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
                if mask is own:
                    return compute(q, k, v, *args, **kwargs)
                if len(args) > 1:
                    return compute(q, k, v, args[0], mask, *args[2:], **kwargs)
                return compute(q, k, v, *args, **{**kwargs, "mask": mask})

            def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
                return with_mask(attention, q, k, v, mask)

            def compute(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = own) -> Tensor:
                if previous is None:
                    return attend(q, k, v, mask)
                theirs = functools.partial(previous, attention)
                return self._foreign(previous, lambda q, k, v: with_mask(theirs, q, k, v, mask))(q, k, v)

            heads = args[0] if args else kwargs["heads"]
            found = self._finder.take(kwargs["transformer_options"], Shape(len(q), q.shape[-2], k.shape[-2], heads))
            if found is None:
                return compute(q, k, v)
            site, inputs = found
            # some networks divide the heads of the values alone
            values = v.flatten(2) if v.ndim > q.ndim else v
            call = AttentionCall(site, q, k, values, own, kwargs.get("scale"), inputs, attend)
            return self._processed(call, compute, previous)

        return override

    def _foreign(self, patch: Callable, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        for each in self.processors:
            compute = each.foreign(patch, compute)
        return compute

    def _processed(self, call: AttentionCall, compute: Callable[..., Tensor], patch: Callable | None) -> Tensor:
        """The output of a call with the processors' edits, after they have seen it.

        patch: another node's, if `compute` runs one; None if it runs only the user's backend.
        """
        wanted = [each for each in self.processors if call.site.kind in each.kinds and each.wants(call.site)]
        edited = call
        for each in wanted:
            edited = each.edit(edited)
        # another node may compute in place, but processors look at q and k afterwards
        out = _computed(edited, _on_copies(compute) if wanted and patch is not None else compute, patch)
        for each in wanted:
            each.see(call, out)
        return out


def _on_copies(compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda q, k, v, *mask: compute(q.clone(), k.clone(), v.clone(), *mask)


def _computed(call: AttentionCall, compute: Callable[..., Tensor], patch: Callable | None) -> Tensor:
    """The output of an edited call: without edits, that of `compute` itself.

    The first computation is of all rows in their original shapes, so that rows which are not edited keep their bits;
    rows that need other shapes are computed once more, by themselves.
    """
    same, others = {}, defaultdict(list)
    for row, edit in call.edits.items():
        shapes = tuple(None if each is None else each.shape[1:] for each in (edit.q, edit.k, edit.v, edit.mask))
        fits = edit.mask is None and all(
            shape in (None, own.shape[1:]) for shape, own in zip(shapes, (call.q, call.k, call.v), strict=False)
        )
        if fits:
            same[row] = edit
        else:
            others[shapes].append(row)
    if (others or call.added or call.parts) and call.attend is None:
        raise ValueError(
            f"the attention {call.site.name} is computed by {patch_name(patch)}, which cannot compute some of "
            "its rows with other keys than the rest: connect the model without it"
        )
    own = (
        _exchanged(tensor, {row: getattr(edit, name) for row, edit in same.items()})
        for name, tensor in (("q", call.q), ("k", call.k), ("v", call.v))
    )
    out = compute(*own)
    for rows in others.values():
        part = compute(*call.of_rows(rows))
        out = out.index_copy(0, call.numbers(rows), part.to(out))
    out = out.clone() if call.parts else out
    for each in call.parts:
        q = call.of_rows([each.row])[0][..., each.queries, :]
        out[each.row].index_copy_(-2, each.queries, compute(q, each.k, each.v, None)[0].to(out))
    for rows, attention in call.computed:
        out = out.index_copy(0, call.numbers(rows), attention(*call.of_rows(rows)).to(out))
    for each in call.added:
        part = compute(each.q, each.k, each.v, mask_of_rows(call.mask, each.rows))
        out = out.index_copy(0, each.rows, out[each.rows] + part.to(out))
    for change in call.changes:
        values = joined(call.of_rows(change.rows)[2][..., change.tokens, :], call.site.heads).float()
        added = attention_change(change.amount, values)
        if out.ndim == 4:
            added = by_head(added, out.shape[-1])
        summed = out.float().index_add(0, change.rows, added)
        # what depends on a variable stays as precise as its derivative is
        out = summed if change.amount.requires_grad else summed.to(out)
    for each in call.mixtures:
        out = each.mixed(out, compute, call.q if call.attend is None else None)
    return out


def _exchanged(tensor: Tensor, rows: dict[int, Tensor | None]) -> Tensor:
    """The tensor with these rows replaced; the tensor itself if there are none."""
    rows = {row: each for row, each in rows.items() if each is not None}
    if not rows:
        return tensor
    numbers = torch.tensor(list(rows), device=tensor.device)
    return tensor.index_copy(0, numbers, torch.cat(list(rows.values())).to(tensor))


def _around(ours: Callable, theirs: Callable | None) -> Callable:
    """`ours`, marked so that `inspect.unwrap` finds the other node's patch `theirs`, which messages name."""
    return ours if theirs is None else functools.update_wrapper(ours, theirs, assigned=(), updated=())
