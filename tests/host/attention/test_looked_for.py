"""Maps of words that are not in the prompt, against q, k and the layers' weights of the same run in float64."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.attention.aggregate import normalise
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.subjects import Subject
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.one_call import probe
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.patches import PATCHES
from tests.host.regional_patches import Couple, left_half
from tests.host.toy_sampling import PROMPT, Toy
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

# One word, two words, and one that stands in the prompt of SUBJECTS.
WORDS = "cat, blue sky, red"
LABELS = ("red", "cat", "blue sky")

# In multiples of a map's mean; other shapes of a call round the activations in other orders.
CLOSE = 1e-4


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


class Layers:
    """q, k, heads and the weight of to_k [H*d,c] of each cross-attention in each call of a model's network."""

    def __init__(self, model) -> None:
        self.calls: dict[str, list[tuple]] = {}
        self._network = model.model.diffusion_model

    @contextmanager
    def watching(self):
        handles = []
        for name, module in self._network.named_modules():
            if name.endswith(".attn2"):
                handles += self._watch(name, module)
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name, module):
        made, calls = {}, self.calls.setdefault(name, [])

        def keep(projection, args, out):
            # what the pack asks of a layer has no rows
            if out.ndim == 3:
                made[projection] = out.double()

        def done(attention, args, out):
            calls.append((made[attention.to_q], made[attention.to_k], attention.heads, weight(attention.to_k).double()))

        return [
            *(each.register_forward_hook(keep) for each in (module.to_q, module.to_k)),
            module.register_forward_hook(done),
        ]

    def expected(self, vectors, rows, grid, call=0, *, positions=None, share=None, scores=False):
        """The map [B,h,w] of a word, added up over the layers; see `of_layers`."""
        how = {"positions": positions, "share": share, "scores": scores}
        return sum(self.of_layers(vectors, rows, grid, call, **how))

    def of_layers(self, vectors, rows, grid, call=0, *, positions=None, share=None, scores=False):
        """Each layer's map [B,h,w] of a word: its tokens are `vectors` [n,c], or stand at `positions` of the prompt."""
        found = []
        for calls in self.calls.values():
            q, k, heads, weight = calls[call]
            q, k = q[rows], k[rows]
            added = k[:, positions] if vectors is None else (vectors.double() @ weight.T).expand(len(q), -1, -1)
            a, b, c = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, added))
            d = a.shape[-1]
            own = a @ c.transpose(-1, -2) / math.sqrt(d)
            if scores:
                maps = own.mean(-1).sum(1)
            else:
                others = a @ b.transpose(-1, -2) / math.sqrt(d)
                others = others if share is None else others[..., share]
                there = others if vectors is None else torch.cat([others, own], dim=-1)
                maps = (own.exp().sum(-1) / there.exp().sum(-1)).sum(1)
            size = next(size for size in grids(grid) if math.prod(size) == q.shape[1])
            found.append(F.interpolate(maps.unflatten(-1, size)[None], size=grid, mode="nearest")[0])
        return found


def weight(layer):
    return layer.weight.detach()


def grids(grid):
    while True:
        yield tuple(grid)
        grid = tuple(-(-side // 2) for side in grid)


def encoded(toy: Toy, text: str) -> torch.Tensor:
    """The context [77·n,64] of a text."""
    return toy.clip.encode_from_tokens_scheduled(toy.clip.tokenize(text))[0][0][0]


def assert_same_maps(found, expected, scores=False):
    """Both [B,h,w], in multiples of their means."""
    if scores:
        expected = expected - expected.amin((-2, -1), keepdim=True)
    a, b = (each / each.mean((-2, -1), keepdim=True) for each in (found.double(), expected))
    assert (a - b).abs().max() < CLOSE


@pytest.mark.parametrize("reading", ["softmax", "scores"])
@pytest.mark.parametrize(
    ("kind", "grid", "share"),
    [
        ("SD15", (16, 16), "all tokens"),
        ("SD15", (7, 11), "prompt words"),
        ("SD20", (16, 12), "all tokens"),
        ("SDXL", (12, 16), "prompt words"),
    ],
)
def test_words_are_read_by_each_layers_own_keys(comfy, toy, kind, grid, share, reading):
    """In a batch of 3, of which the negative rows come first."""
    model, start, scores = random_unet(kind), noise(3, grid), reading == "scores"
    patcher = model.clone()
    how = {"clip": toy.clip, "look_for": WORDS, "reading": reading, "share": share}
    capture = observe(patcher, SUBJECTS, **how)
    with Layers(model).watching() as layers:
        made = sample(patcher, 2, start=start)
    assert torch.equal(made, sample(model, 2, start=start))
    own = list(SUBJECTS.word_positions()) if share == "prompt words" else None
    for call, seen in enumerate(capture.runs.kept[0].saliencies):
        assert seen.labels == ("dog", "beach", *LABELS)
        places = {"cat": encoded(toy, "cat")[1:2], "blue sky": encoded(toy, "blue sky")[1:3]}
        for word, maps in zip(LABELS, seen.maps[2:], strict=True):
            of_call = {"share": own, "scores": scores, "positions": [2]}
            expected = layers.expected(places.get(word), slice(3, 6), grid, call, **of_call)
            assert_same_maps(maps, expected, scores)


def test_the_maps_of_the_prompts_words_are_the_same_bits(model, toy):
    maps = []
    for look_for in ("", WORDS):
        patcher = model.clone()
        capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for=look_for, reading="scores")
        sample(patcher, 2, batch=2)
        maps.append(capture.runs.kept[0].saliencies[-1].maps)
    assert torch.equal(maps[1][:2], maps[0])


def test_a_word_that_stands_in_the_prompt_has_the_map_that_it_has_as_a_subject(model, toy):
    """It is read from the prompt's own encoding, and a subject that is looked for is not read twice."""
    red = Subject("red", "subject", (2, 5), {"l": (2,)})
    patcher = model.clone()
    both = observe(patcher, replace(SUBJECTS, items=(*SUBJECTS.items, red)))
    found = observe(patcher, SUBJECTS, clip=toy.clip, look_for="Red, dog")
    sample(patcher, 1)
    assert found.latest().labels == ("dog", "beach", "red")
    assert torch.equal(found.latest().maps, both.latest().maps)


def test_every_place_in_the_prompt_or_one_of_them(model, toy):
    prompt = "a dog and a dog"
    subjects = replace(parse(prompt, tokenize(toy.clip, prompt), "", "rules"), items=())
    patcher = model.clone()
    each = observe(patcher, subjects, clip=toy.clip, look_for="dog")
    second = observe(patcher, subjects, clip=toy.clip, look_for="dog#2")
    sample(patcher, 1)
    assert each.latest().labels == ("dog#1", "dog#2")
    assert second.latest().labels == ("dog#2",)
    assert torch.equal(second.latest().maps[0], each.latest().maps[1])
    assert not torch.equal(each.latest().maps[0], each.latest().maps[1])


def test_a_subject_that_is_looked_for_has_its_scores_beside_its_attention(model, toy):
    """As if it were no subject; its map of attention is another thing."""
    patcher = model.clone()
    alone = observe(patcher, replace(SUBJECTS, items=()), clip=toy.clip, look_for="dog, cat", reading="scores")
    both = observe(patcher, SUBJECTS, clip=toy.clip, look_for="dog, cat", reading="scores")
    plain = observe(patcher, SUBJECTS)
    made = sample(patcher, 1)
    assert both.latest().labels == ("dog", "beach", "dog (scores)", "cat")
    assert torch.equal(both.latest().maps[2:], alone.latest().maps)
    assert torch.equal(both.latest().maps[:2], plain.latest().maps)
    assert both.saliency(made, "looked for", "mean").labels == ("dog (scores)", "cat")


@pytest.mark.parametrize("refine", [0, 1])
def test_all_words_have_the_maps_that_they_have_as_subjects(model, toy, refine):
    prompt = "a red dog and a small dog on a beach"
    subjects = parse(prompt, tokenize(toy.clip, prompt), "dog#2, scene: beach", "rules")
    named = parse(prompt, tokenize(toy.clip, prompt), "dog, beach, a, red, and, small, on", "rules")
    patcher, how = model.clone(), {"clip": toy.clip, "look_for": "cat", "refine": refine}
    every = observe(patcher, subjects, all_words=True, **how)
    few, all_subjects = observe(patcher, subjects, **how), observe(patcher, named, **how)
    made = sample(patcher, 2)
    found = every.saliency(made, "all", "mean")
    others = ("a#1", "red", "dog#1", "and", "a#2", "small", "on", "a#3")
    assert found.labels == ("dog#2", "beach", *others, "cat")
    expected = all_subjects.saliency(made, "all", "mean")
    assert sorted(expected.labels) == sorted(found.labels)
    for label, maps in zip(found.labels, found.maps, strict=True):
        # sums of the same numbers: the columns of a product with more of them may be added up in another order
        torch.testing.assert_close(maps, expected.maps[expected.labels.index(label)], rtol=1e-5, atol=1e-9)
    assert few.saliency(made, "all", "mean").labels == ("dog#2", "beach", "cat")
    assert every.saliency(made, "subject", "mean").labels == ("dog#2",)
    assert every.saliency(made, "looked for", "mean").labels == ("cat",)
    other = every.saliency(made, "other", "each")
    assert other.labels == tuple(f"{word}, step {step}" for step in (0, 1) for word in others)
    with pytest.raises(ValueError, match="no words without a role were captured: switch on all_words"):
        few.saliency(made, "other", "mean")


@pytest.mark.parametrize(("reading", "found"), [("softmax", ("cat",)), ("scores", ("red (scores)", "cat"))])
def test_a_word_of_the_prompt_that_is_looked_for_is_not_read_twice_in_one_way(model, toy, reading, found):
    prompt = "a red dog"
    subjects = parse(prompt, tokenize(toy.clip, prompt), "dog", "rules")
    patcher = model.clone()
    capture = observe(patcher, subjects, clip=toy.clip, look_for="red, cat", reading=reading, all_words=True)
    sample(patcher, 1)
    assert capture.latest().labels == ("dog", "a", "red", *found)


def test_all_words_without_a_subject_and_of_a_probe(model, toy):
    prompt = "a dog on a beach"
    subjects = replace(parse(prompt, tokenize(toy.clip, prompt), "", "rules"), items=())
    found = probe(model, conditioning(1), {"samples": noise(2, (12, 20))}, subjects, 0.3, 1, all_words=True)
    assert found.labels == ("a#1", "dog", "on", "a#2", "beach")
    assert found.maps.shape == (5, 2, 12, 20)
    torch.testing.assert_close(found.maps.sum((-2, -1)), torch.ones(5, 2))


def test_a_lora_on_the_keys_counts(model, toy):
    changed = model.clone()
    keys = [name for name in model.model.state_dict() if name.endswith("attn2.to_k.weight")]
    generator = torch.Generator().manual_seed(3)
    shapes = {name: model.model.state_dict()[name].shape for name in keys}
    loras = {name: ("diff", (torch.randn(shape, generator=generator) * 0.1,)) for name, shape in shapes.items()}
    assert len(changed.add_patches(loras, 0.8)) == len(keys)
    capture = observe(changed, SUBJECTS, clip=toy.clip, look_for="cat")
    with Layers(model).watching() as layers:
        sample(changed, 1)
    assert_same_maps(capture.latest().maps[2], layers.expected(encoded(toy, "cat")[1:2], slice(1, 2), (16, 16)))
    plain = model.clone()
    before = observe(plain, SUBJECTS, clip=toy.clip, look_for="cat")
    sample(plain, 1)
    assert not torch.allclose(before.latest().maps[2], capture.latest().maps[2], rtol=0.01)


def test_a_phrase_may_be_longer_than_one_chunk_and_have_weights(model, toy):
    phrase = f"({' '.join(['blue'] * 40)}:1.3) {' '.join(['sky'] * 45)}"
    tokens = [*range(1, 76), *range(78, 88)]
    patcher = model.clone()
    capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for=phrase)
    with Layers(model).watching() as layers:
        sample(patcher, 1)
    assert capture.latest().labels[2] == " ".join(["blue"] * 40 + ["sky"] * 45)
    expected = layers.expected(encoded(toy, phrase)[tokens], slice(1, 2), (16, 16))
    assert_same_maps(capture.latest().maps[2], expected)


@pytest.mark.parametrize("reading", ["softmax", "scores"])
def test_split_calls_give_the_same_maps_as_joined_ones(model, toy, monkeypatch, reading):
    maps = []
    for split in (False, True):
        if split:
            monkeypatch.setattr(model.model, "memory_required", lambda *args, **kwargs: 1e30)
        patcher = model.clone()
        capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for=WORDS, reading=reading)
        sample(patcher, 1, batch=3)
        maps.append(capture.latest().maps * 256)
    assert torch.allclose(*maps, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("reading", ["softmax", "scores"])
def test_areas_lie_at_their_places(model, toy, reading):
    """Outside of the area there is nothing; scores stand above each layer's smallest one in it."""
    import nodes

    (area,) = nodes.ConditioningSetArea().append(conditioning(1), 96, 128, 32, 0, 3.0)
    patcher, scores = model.clone(), reading == "scores"
    capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for="cat", reading=reading)
    sample(patcher, 1, positive=area)
    with Layers(model).watching() as layers:
        sample(model, 1, start=noise()[..., 4:])
    of_layers = layers.of_layers(encoded(toy, "cat")[1:2], slice(1, 2), (16, 12), scores=scores)
    expected = torch.zeros(1, 16, 16, dtype=torch.float64)
    expected[..., 4:] = sum(each - each.amin() * scores for each in of_layers)
    found = capture.latest().maps[2]
    assert torch.equal(found[..., :4], torch.zeros(1, 16, 4))
    assert_same_maps(found, expected)


def test_a_region_with_a_prompt_of_its_own(model, toy):
    """The word beside that prompt, times the region's share of each place."""
    region = conditioning(5)
    couple = Couple([left_half(), 1 - left_half()], [region[0][0]])
    patcher = couple.install(model)
    capture = observe(patcher, SUBJECTS, positive=region, clip=toy.clip, look_for="cat")
    with Layers(model).watching() as layers:
        sample(patcher, 1)
    # rows: of the negative, of the sampler's own prompt, of the region
    expected = layers.expected(encoded(toy, "cat")[1:2], slice(2, 3), (16, 16))
    expected[..., :8] = 0
    assert_same_maps(capture.latest().maps[2], expected)


@pytest.mark.parametrize("patch", PATCHES)
def test_beside_other_nodes_the_picture_is_the_same(model, toy, patch):
    patched = PATCHES[patch](model)
    observed = patched.clone()
    observe(observed, SUBJECTS, clip=toy.clip, look_for="cat")
    assert torch.equal(sample(observed, 2), sample(patched, 2))


def test_refined_with_the_others(model, toy):
    maps = []
    for look_for in ("", "cat"):
        patcher = model.clone()
        capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for=look_for, reading="scores", refine=2)
        sample(patcher, 1)
        maps.append(capture.latest().maps)
    assert torch.allclose(maps[1][:2], maps[0], rtol=1e-5)
    assert torch.allclose(maps[1].sum((-2, -1)), torch.ones(3, 1))


@pytest.mark.parametrize("reading", ["softmax", "scores"])
def test_after_a_run_they_are_read_like_all_others(model, toy, reading):
    patcher, scores = model.clone(), reading == "scores"
    capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for="cat", reading=reading)
    with Layers(model).watching() as layers:
        made = sample(patcher, 2)
    vectors = encoded(toy, "cat")[1:2]
    calls = [layers.expected(vectors, slice(1, 2), (16, 16), call, scores=scores) for call in (0, 1)]
    total = capture.saliency(made, "looked for", "sum")
    assert total.labels == ("cat",)
    assert_same_maps(total.maps[0], sum(calls), scores)
    each = capture.saliency(made, "looked for", "each")
    assert each.labels == ("cat, step 0", "cat, step 1")
    for maps, expected in zip(each.maps, calls, strict=True):
        assert_same_maps(maps, expected, scores)
    assert capture.saliency(made, "subject", "mean").labels == ("dog",)
    assert capture.saliency(made, "all", "last").labels == ("dog", "beach", "cat")
    layered = capture.saliency(made, "looked for", "mean", each_layer=True)
    assert len(layered.labels) == len(layers.calls)
    for maps, name in zip(layered.maps, layers.calls, strict=True):
        one = Layers(model)
        one.calls = {name: layers.calls[name]}
        summed = sum(one.expected(vectors, slice(1, 2), (16, 16), call, scores=scores) for call in (0, 1))
        assert_same_maps(maps, summed, scores)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("reading", ["softmax", "scores"])
def test_in_half_precision(comfy, toy, dtype, reading):
    """Words become keys in the network's own precision, as the prompt does; what follows is float32."""
    model = random_unet("SD15", dtype)
    patcher = model.clone()
    capture = observe(patcher, SUBJECTS, clip=toy.clip, look_for="cat", reading=reading)
    with Layers(model).watching() as layers:
        made = sample(patcher, 1)
    assert torch.equal(made, sample(model, 1))
    vectors = encoded(toy, "cat")[1:2].to(dtype)
    expected = layers.expected(vectors, slice(1, 2), (16, 16), scores=reading == "scores")
    if reading == "scores":
        expected = expected - expected.amin((-2, -1), keepdim=True)
    found = capture.latest().maps[2] * 256
    # a key of half precision is off by 2^-9 (bfloat16) of itself, and scores are sums of 64 to 128 products with it
    assert (found - normalise(expected) * 256).abs().max() < (0.05 if dtype is torch.float16 else 0.4)


def test_a_probe_looks_for_words(comfy, toy):
    subjects = parse(PROMPT, tokenize(toy.clip, PROMPT), "", "rules")
    latent = {"samples": noise(2)}
    asked = (toy.model, toy.positive, latent, subjects, 0.5, 3)
    plain, found = probe(*asked), probe(*asked, clip=toy.clip, look_for="cat, the")
    assert found.labels == ("dog", "beach", "the", "cat")
    assert torch.equal(found.maps[:2], plain.maps)
    assert found.maps.shape == (4, 2, 16, 16)
    assert found.step is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": None}, "look_for is 'cat', but no CLIP is connected"),
        ({"look_for": "dog#2"}, "look_for: there is no 'dog#2'; the prompt has 'dog' 1 time"),
        ({"look_for": "cat#2"}, "'cat#2' has a number, but 'cat' is not in the prompt"),
        ({"reading": "raw"}, "reading 'raw' is not one of: softmax, scores"),
        ({"look_for": "a" * 10_001}, "has 10,001 characters"),
    ],
)
def test_what_cannot_be_looked_for_is_named(model, toy, options, message):
    with pytest.raises(ValueError, match=message):
        observe(model.clone(), SUBJECTS, **{"clip": toy.clip, "look_for": "cat", **options})


def test_a_clip_of_another_model_is_named(comfy, toy):
    wider = random_unet(context_dim=96)
    patcher = wider.clone()
    observe(patcher, SUBJECTS, clip=toy.clip, look_for="cat")
    positive, negative = ([[torch.randn(1, 77, 96), {"pooled_output": torch.zeros(1, 1280)}]] for _ in range(2))
    with pytest.raises(ValueError, match="vectors of 64 numbers, but this model reads text as vectors of 96"):
        sample(patcher, 1, positive=positive, negative=negative)


def test_a_clip_with_a_schedule_is_named(comfy, model, toy):
    """It would encode a word in two ways: with the change from 0 to 50 % of the steps, and without it afterwards."""
    import comfy.hooks
    from comfy_extras.nodes_hooks import SetClipHooks

    name = next(name for name in toy.clip.cond_stage_model.state_dict() if name.endswith("q_proj.weight"))
    lora = {name.replace(".weight", ".diff"): torch.zeros_like(toy.clip.cond_stage_model.state_dict()[name])}
    hooks = comfy.hooks.create_hook_lora(lora=lora, strength_model=0.0, strength_clip=1.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.5)):
        keyframes.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    (scheduled,) = SetClipHooks().apply_hooks(toy.clip, True, False, hooks)
    with pytest.raises(ValueError, match="the CLIP encodes 'cat' in 2 ways"):
        observe(model.clone(), SUBJECTS, clip=scheduled, look_for="cat")


@pytest.mark.parametrize("text", [" , ", "，、", "(), dog"])
def test_without_a_word_of_its_own_nothing_is_looked_for(model, toy, text):
    patcher = model.clone()
    capture = observe(patcher, SUBJECTS, clip=toy.clip if "dog" in text else None, look_for=text, refine=1)
    made = sample(patcher, 1)
    assert capture.latest().labels == ("dog", "beach")
    with pytest.raises(ValueError, match="nothing was looked for: type words into look_for"):
        capture.saliency(made, "looked for", "mean")


def test_a_prompt_without_subjects(model, toy):
    subjects = replace(SUBJECTS, items=())
    with pytest.raises(ValueError, match="no subject to capture"):
        observe(model.clone(), subjects)
    patcher = model.clone()
    capture = observe(patcher, subjects, clip=toy.clip, look_for="cat")
    made = sample(patcher, 1)
    assert capture.saliency(made, "all", "mean").labels == ("cat",)
    with pytest.raises(ValueError, match="has no subject"):
        capture.saliency(made, "subject", "mean")
