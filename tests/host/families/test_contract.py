"""What holds for every model family: observers change nothing, rows and words are the right ones, editors touch only
what they name, other nodes keep working, and nothing is left.

A family is tested by the networks it has in `networks.NETWORKS`.
"""

from __future__ import annotations

import gc
import inspect
import math
import weakref
from contextlib import contextmanager, nullcontext

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.aggregate import normalise
from explainable_latents.nodes.host.attention.attention_call import Processor
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.families.family import FAMILIES, family_of
from explainable_latents.nodes.host.families.sites import CROSS, SELF
from explainable_latents.nodes.host.families.transformer import Transformer
from tests.host.families.networks import NETWORKS, reading
from tests.host.families.processors import Look, with_processors
from tests.host.unets import SUBJECTS, conditioning, noise, sample

GRID = (10, 12)


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, comfy):
    return NETWORKS[request.param]


@pytest.fixture(scope="module")
def model(network):
    return network.build()


def attention(q, k, v, heads, mask=None, change=0.0):
    """softmax(q k^T / sqrt(d) + mask) + change, times v: in float64."""
    q, k, v = (each.double().unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    p = torch.softmax(scores if mask is None else scores + mask.double(), dim=-1) + change
    return (p @ v).transpose(1, 2).flatten(2)


def test_every_family_is_tested():
    """The transformers of the table are tested in test_transformers.py, one by one."""
    others = [family for family in FAMILIES if not isinstance(family, Transformer)]
    assert {type(family).__name__ for family in others} == {network.family for network in NETWORKS.values()}


# Where the prompt's rows are.


def exchanged(model):
    """A node that gives the network the positive conditionings first, where the host puts the negative ones."""

    def wrapper(apply_model, args):
        count = len(args["cond_or_uncond"])

        def turned(each):
            return torch.cat(each.chunk(count)[::-1])

        options = dict(args["c"]["transformer_options"])
        options |= {name: options[name][::-1] for name in ("cond_or_uncond", "uuids")}
        c = {name: turned(value) for name, value in args["c"].items() if torch.is_tensor(value)}
        return turned(apply_model(turned(args["input"]), turned(args["timestep"]), **c, transformer_options=options))

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def alone(network, model, start, prompt):
    """The sum over layers [S,1,h,w] of one picture whose network call has no other rows, from the modules' q and k."""
    with reading(network, model) as found:
        sample(model, 1, cfg=1.0, positive=prompt, start=start)
    grid, summed = start.shape[-2:], 0
    for (p,) in found.values():
        size = next(size for size in grids(grid) if math.prod(size) == p.shape[2])
        maps = torch.stack([p[..., list(tokens)].sum((-1, 1)).unflatten(-1, size) for tokens in SUBJECTS.positions()])
        summed = summed + F.interpolate(maps, size=grid, mode="nearest")
    return summed


def grids(grid):
    """Those of a network's layers: each half the one before, rounded up."""
    while True:
        yield tuple(grid)
        grid = tuple(-(-side // 2) for side in grid)


@contextmanager
def counting(model):
    """The calls of the network in this block."""
    calls = []
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        yield calls
    finally:
        handle.remove()


ROWS = {
    "joined": {},
    "positive first": {"patch": exchanged},
    "split": {"split": True},
    "batch 3": {"start": noise(3, GRID)},
    "batch 3, split": {"start": noise(3, GRID), "split": True},
    "two positives": {"positive": [*conditioning(5), *conditioning(1)], "chosen": conditioning(1)},
    "uneven token counts": {"negative": conditioning(2, 3)},
    "longer positive, uneven": {"positive": conditioning(1, 2), "negative": conditioning(2, 3)},
    "odd sides": {"start": noise(1, (7, 11))},
}


@pytest.mark.parametrize("case", ROWS)
def test_the_prompts_rows_are_found_and_the_picture_is_unchanged(network, model, monkeypatch, case):
    how = {"start": noise(1, GRID), "positive": conditioning(1)} | ROWS[case]
    patch, chosen, split = (how.pop(name, None) for name in ("patch", "chosen", "split"))
    prompt = chosen or how["positive"]
    expected = torch.cat([normalise(alone(network, model, each[None], prompt)) for each in how["start"]], dim=1)
    plain = patch(model) if patch else model
    observed = plain.clone()
    capture = observe(observed, SUBJECTS, positive=chosen)
    if split:
        monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
    with counting(model) as calls:
        made = sample(observed, 1, **how)
    assert len(calls) == (2 if split else 1)
    assert torch.equal(made, sample(plain, 1, **how))
    found = capture.runs.kept[-1].saliencies[0].maps
    # In multiples of the maps' mean; calls of other shapes round the activations in other orders.
    assert (found - expected).abs().max() * math.prod(expected.shape[-2:]) < 1e-4


def test_areas_lie_at_their_places(network, model):
    """Two of one prompt; where they overlap the strengths 1 and 3 count, and outside there is nothing."""
    import nodes

    area = nodes.ConditioningSetArea().append
    prompt = conditioning(1, width=128, height=80)  # SDXL is told the size of the whole picture
    positive = [*area(prompt, 96, 64, 0, 16, 1.0)[0], *area(prompt, 96, 64, 32, 16, 3.0)[0]]
    observed, start = model.clone(), noise(1, (10, 16))
    capture = observe(observed, SUBJECTS)
    made = sample(observed, 1, positive=positive, start=start)
    assert torch.equal(made, sample(model, 1, positive=positive, start=start))
    left, right = (alone(network, model, start[..., 2:, x : x + 12], prompt) for x in (0, 4))
    frame = torch.zeros(2, 1, 10, 16, dtype=torch.float64)
    frame[..., 2:, :4], frame[..., 2:, 12:] = left[..., :4], right[..., 8:]
    frame[..., 2:, 4:12] = 0.25 * left[..., 4:] + 0.75 * right[..., :8]
    found = capture.runs.kept[-1].saliencies[0].maps
    assert (found - normalise(frame)).abs().max() * 160 < 1e-4


# What stands at the sites.


class Edit(Processor):
    """Gives rows what `change(q, k, v)` says, as `with_rows` takes it."""

    def __init__(self, kind, rows, change):
        self.kinds = (kind,)
        self.rows = rows
        self.change = change

    def edit(self, call):
        return call.with_rows(self.rows, **self.change(*call.of_rows(self.rows)[:3]))


class Probabilities(Processor):
    """Takes some of the third key's probability away, and gives it to the first."""

    def __init__(self, kind, rows, by=0.5):
        self.kinds = (kind,)
        self.rows = rows
        self.by = by

    def edit(self, call):
        tokens = torch.tensor([0, 2])
        p = call.probabilities(self.rows, tokens)[..., 1:] * self.by
        return call.with_change(self.rows, tokens, torch.cat([p, -p], dim=-1))


def more_keys(q, k, v):
    return {"k": torch.cat([k, k[:, :5] * 2], dim=1), "v": torch.cat([v, v[:, 5:10]], dim=1)}


def some_keys(q, k, v):
    mask = torch.zeros(len(q), 1, q.shape[1], k.shape[1])
    mask[..., ::2] = -3.0
    return {"mask": mask}


def other_values(q, k, v):
    return {"v": v.flip(1)}


def other_queries_and_keys(q, k, v):
    return {"q": q.flip(1), "k": k * 0.5}


EDITS = [more_keys, some_keys, other_values, other_queries_and_keys, Probabilities]


def test_every_site_is_seen_in_running_order_with_what_it_computes(network, model):
    look = Look()
    watched = with_processors(model, lambda rows: [look])
    assert torch.equal(sample(watched, 1, start=noise(1, GRID)), sample(model, 1, start=noise(1, GRID)))
    family = family_of(model)
    for kind in (CROSS, SELF):
        calls = [(call, out) for call, out in look.seen if call.site.kind == kind]
        names = [call.site.name for call, _ in calls]
        assert tuple(names) == family.site_names(model.model.diffusion_model, kind)
        assert set(names) == set(network.modules(model.model.diffusion_model, kind))
        for call, out in calls:
            site = call.site
            h, w = site.grid
            assert site.grid in [size for size, _ in zip(grids(GRID), range(3), strict=False)]
            assert (site.queries, site.keys) == (slice(0, h * w), slice(0, h * w if kind == SELF else 77))
            assert (out - attention(call.q, call.k, call.v, site.heads)).abs().max() < 1e-4
            assert torch.equal(call.attend(call.q, call.k, call.v), out)


def test_keys_of_another_text_are_made_by_each_sites_own_layer(network, model):
    made, whole = family_of(model).key_layers(model.model.diffusion_model), model.model.diffusion_model
    assert tuple(made) == family_of(model).site_names(whole, CROSS)
    text = torch.randn(5, 64, generator=torch.Generator().manual_seed(1))
    for name, module in network.modules(whole, CROSS).items():
        assert torch.equal(made[name](text), module.to_k(text))


@pytest.mark.parametrize("kind", [CROSS, SELF])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_editor_changes_the_rows_that_it_names_and_no_bit_of_the_others(network, model, edit, kind):
    """Of three pictures the second one is edited, at every site."""
    look, edited, start = Look(), [], noise(3, (8, 6))

    def make(rows):
        edited[:] = rows[1]
        return [look, edit(kind, rows[1]) if edit is Probabilities else Edit(kind, rows[1], edit)]

    out = sample(with_processors(model, make), 1, start=start)
    plain = sample(model, 1, start=start)
    assert torch.equal(out[[0, 2]], plain[[0, 2]])
    assert (out[1] - plain[1]).abs().max() > 1e-3
    others = [row for row in range(6) if row not in edited]
    for call, made in look.seen:
        q, k, v = (each[edited] for each in (call.q, call.k, call.v))
        now, more = {"q": q, "k": k, "v": v}, {}
        if call.site.kind == kind and edit is Probabilities:
            p = 0.5 * call.probabilities(edited, torch.tensor([2]))
            more = torch.zeros(*p.shape[:3], k.shape[1])
            more[..., :1], more[..., 2:3] = p, -p
            more = {"change": more}
        elif call.site.kind == kind:
            now |= edit(q, k, v)
        expected = attention(heads=call.site.heads, **now, **more)
        assert (made[edited] - expected).abs().max() < 1e-4
        kept = attention(*(each[others] for each in (call.q, call.k, call.v)), call.site.heads)
        assert (made[others] - kept).abs().max() < 1e-4


def same(q, k, v):
    return {"q": q, "k": k, "v": v}


def test_an_editor_that_edits_nothing_changes_no_bit(network, model):
    start = noise(2, (8, 6))
    plain = sample(model, 1, start=start)
    for kind in (CROSS, SELF):
        nothing = [lambda rows: Processor(), lambda rows, kind=kind: Edit(kind, rows[0], same)]
        nothing.append(lambda rows, kind=kind: Probabilities(kind, rows[1], by=0.0))
        for make in nothing:
            assert torch.equal(
                sample(with_processors(model, lambda rows, make=make: [make(rows)]), 1, start=start), plain
            )


@pytest.mark.parametrize("kind", [CROSS, SELF])
def test_editors_are_applied_one_after_the_other_in_the_order_of_the_nodes(network, model, kind):
    start = noise(1, (8, 6))

    def made(*changes):
        patched = model
        for change in changes:
            patched = with_processors(patched, lambda rows, change=change: [Edit(kind, rows[0], change)])
        return sample(patched, 1, start=start)

    def both(q, k, v):
        longer = more_keys(q, k, v)
        return longer | other_values(q, longer["k"], longer["v"])

    assert torch.equal(made(more_keys, other_values), made(both))
    assert not torch.equal(made(other_values, more_keys), made(both))


def test_a_model_call_has_one_override_however_many_nodes_want_one(model):
    from comfy.patcher_extension import WrappersMP

    seen, patched = [], model.clone()
    for _ in range(2):
        observe(patched, SUBJECTS)
    patched = with_processors(patched, lambda rows: [Look()])

    def note(executor, *args, **kwargs):
        seen.append(args[5])
        return executor(*args, **kwargs)

    for each in (model.clone(), patched):
        each.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "innermost", note)
        sample(each, 1, start=noise(1, GRID))
    plain, ours = seen
    assert "optimized_attention_override" not in plain
    override = ours["optimized_attention_override"]
    assert inspect.unwrap(override) is override


# Other nodes.


def scaled(attention, *args, **kwargs):
    return attention(*args, **kwargs) * 0.9


def an_override(network, model):
    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = scaled
    return model


def an_override_at_call_time(network, model):
    from comfy.patcher_extension import WrappersMP

    def wrapper(executor, x, t, c_concat, c_crossattn, control, transformer_options, **conds):
        theirs = transformer_options.get("optimized_attention_override")

        def override(attention, *args, **kwargs):
            return 0.9 * (attention(*args, **kwargs) if theirs is None else theirs(attention, *args, **kwargs))

        options = {**transformer_options, "optimized_attention_override": override}
        return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "other", wrapper)
    return model


def a_replacement(kind):
    def install(network, model):
        """It computes in place, and through the host's attention."""
        from comfy.ldm.modules.attention import optimized_attention

        def replacement(q, k, v, extra_options):
            return optimized_attention(q.mul_(1.1), k, v, extra_options["n_heads"], transformer_options=extra_options)

        model = model.clone()
        network.replace(model, kind, replacement)
        return model

    install.__name__ = f"{kind} replaced"
    return install


OTHERS = [an_override, an_override_at_call_time, a_replacement(CROSS), a_replacement(SELF)]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_another_nodes_attention_stays_in_effect_in_any_order_of_nodes(network, model, other):
    start, looks, maps, edited = noise(2, GRID), [], [], []
    expected = sample(other(network, model), 1, start=start)
    assert (expected - sample(model, 1, start=start)).abs().max() > 1e-3
    for first in (True, False):
        patched, look = other(network, model) if first else model.clone(), Look()
        capture = observe(patched, SUBJECTS)
        patched = with_processors(patched, lambda rows, look=look: [look])
        patched = patched if first else other(network, patched)
        assert torch.equal(sample(patched, 1, start=start), expected)
        maps.append(capture.runs.kept[-1].saliencies[0].maps)
        looks.append([call for call, _ in look.seen])
        patched = with_processors(patched, lambda rows: [Edit(CROSS, rows[0], other_values)])
        edited.append(sample(patched, 1, start=start))
        assert torch.equal(edited[-1][1], expected[1])
        assert (edited[-1][0] - expected[0]).abs().max() > 1e-3
    assert torch.equal(*maps)
    assert torch.equal(*edited)
    assert [call.site for call in looks[0]] == [call.site for call in looks[1]]
    assert len(looks[0]) == sum(len(network.modules(model.model.diffusion_model, kind)) for kind in (CROSS, SELF))
    for first, second in zip(*looks, strict=True):
        assert torch.equal(first.q, second.q)


@pytest.mark.parametrize("kind", [CROSS, SELF])
def test_queries_are_seen_as_they_were_before_another_node_changes_them_in_place(network, model, kind):
    first = []
    for patched in (model, a_replacement(kind)(network, model)):
        look = Look()
        sample(with_processors(patched, lambda rows, look=look: [look]), 1, start=noise(1, GRID))
        calls = {(call.site.kind, call.site.name): call for call, _ in look.seen}
        first.append(calls[kind, "middle.0.0"].q)
    assert torch.equal(*first)


@pytest.mark.parametrize("kind", [CROSS, SELF])
def test_rows_with_keys_of_their_own_are_refused_where_another_node_computes_attention(network, model, kind):
    patched = a_replacement(kind)(network, model)
    patched = with_processors(patched, lambda rows: [Edit(kind, rows[0], more_keys)])
    message = r"attention middle.0.0 is computed by .*replacement of tests.host.families.test_contract.*without it"
    with pytest.raises(ValueError, match=message):
        sample(patched, 1, start=noise(1, GRID))


# What is left.


class Breaks(Look):
    """Looks on, by references that keep nothing alive, until the error comes at the `at`-th site."""

    def __init__(self, at, error):
        super().__init__()
        self.at = at
        self.error = error

    def see(self, call, out):
        self.seen += [weakref.ref(each) for each in (call.inputs.after[0], call.q, call.k, call.v, out)]
        if len(self.seen) == 5 * self.at and self.error is not None:
            raise self.error


@pytest.mark.parametrize("ending", ["done", "cancelled", "failed"])
def test_nothing_is_left(network, model, ending):
    """No option, patch, hook or tensor of a run that ends in its second step; and the next run is like a fresh one.

    Not even where another node keeps the options of the model calls.
    """
    import comfy.model_management
    from comfy.patcher_extension import WrappersMP

    errors = {"failed": RuntimeError("no memory"), "cancelled": comfy.model_management.InterruptProcessingException()}
    start, error = noise(1, GRID), errors.get(ending)
    sites = sum(len(network.modules(model.model.diffusion_model, kind)) for kind in (CROSS, SELF))
    breaks = Breaks(sites + 3, error)
    patched = with_processors(model, lambda rows: [breaks, Probabilities(CROSS, rows[0])])
    capture, options = observe(patched, SUBJECTS), []

    def keep(executor, *args, **kwargs):
        options.append(args[5])
        return executor(*args, **kwargs)

    patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "innermost", keep)
    plain, before = sample(model, 2, start=start), state(patched)
    with nullcontext() if error is None else pytest.raises(type(error)):
        sample(patched, 2, start=start)
    assert len(breaks.seen) == 5 * (2 * sites if error is None else sites + 3)
    errors.clear()
    del error, breaks.error
    gc.collect()
    assert len(options) == 2
    assert not [each for each in breaks.seen if each() is not None]
    assert state(patched) == before
    assert len(capture.runs.kept) == (ending == "done")
    assert torch.equal(sample(model, 2, start=start), plain)


def state(model):
    """All that a run may have left on a model."""
    network = model.model.diffusion_model
    return (
        str(model.model_options),
        str(model.wrappers),
        # their attributes, and the names of their parameters, buffers and hooks
        [
            {name: list(value) if isinstance(value, dict) else None for name, value in vars(module).items()}
            for module in network.modules()
        ],
    )
