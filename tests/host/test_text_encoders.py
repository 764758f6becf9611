"""Words to rows of the encoded prompt, for every text encoder of the host."""

from __future__ import annotations

import importlib
import pkgutil
import re
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.tokens import positions_in
from explainable_latents.nodes.host.tokens import tokenize
from explainable_latents.nodes.host.unreadable_encoders import UNREADABLE
from tests.host.text_encoders import ENCODERS, PROMPT, has, host_clip, path_of
from tests.tools.comfyui.install import installed

HERE = [name for name, encoder in ENCODERS.items() if has(encoder.tokenizer)]

# Llama's tokenizer joins words in this host, so that its rows hold more than a word: it has tests of its own.
JOINS_WORDS = {"HunyuanVideo"}

# These cut long prompts.
CUTS = {"HiDream", "PixelDiT"}


def emitted(clip, prompt: str) -> dict[str, list[int]]:
    return {key: [pair[0] for chunk in chunks for pair in chunk] for key, chunks in clip.tokenize(prompt).items()}


def inner(clip, key: str):
    """The tokenizer of Hugging Face, or of the host, that an encoder decodes with."""
    names = vars(clip.tokenizer)
    return next(names[name] for name in (key, f"clip_{key}") if name in names).tokenizer


def words_in_rows(clip, prompt: str, span: tuple[int, int]) -> dict[str, list[int]]:
    """The ids that the rows of a word hold, by encoder: from its rows back to the host's own tokens."""
    tokens, ids = tokenize(clip, prompt), emitted(clip, prompt)
    rows = set(tokens.context.of(positions_in(span, tokens)))
    return {
        key: [ids[key][position] for position, there in held.items() if rows & set(there)]
        for key, held in tokens.context.held.items()
    }


def plain(text: str) -> str:
    """The text without what tokenizers change on purpose: case, accents, compatibility forms, joiners and spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in decomposed if unicodedata.category(c) not in ("Mn", "Cf") and not c.isspace())


def decoded(clip, key: str, ids: list[int]) -> str:
    return plain(inner(clip, key).decode(ids, skip_special_tokens=False))


def unknown_to(clip, key: str) -> set[int]:
    """Ids that stand for what the tokenizer does not know."""
    vocabulary = inner(clip, key).get_vocab()
    return {vocabulary[name] for name in ("<unk>", "[UNK]") if name in vocabulary}


@pytest.fixture(scope="module", params=HERE)
def encoder(comfy, request) -> SimpleNamespace:
    """One after the other, since their tokenizers take a second and 50 MB each: `known` of it, and its `clip`."""
    clip = host_clip(request.param)
    unknown = {key: unknown_to(clip, key) for key in tokenize(clip, "a dog").context.held}
    return SimpleNamespace(name=request.param, known=ENCODERS[request.param], clip=clip, unknown=unknown)


def test_the_rows_of_the_table_hold_the_words(encoder):
    tokens, (key, first) = tokenize(encoder.clip, PROMPT), encoder.known.first
    assert tokens.context.length == encoder.known.rows
    assert tokens.context.held[key][first][0] == 0
    for word in () if encoder.name in JOINS_WORDS else ("red", "dog", "sunny", "beach"):
        start = PROMPT.index(word)
        found = words_in_rows(encoder.clip, PROMPT, (start, start + len(word)))
        assert {key: decoded(encoder.clip, key, ids) for key, ids in found.items()} == dict.fromkeys(found, word)
        assert found
    weights = {pair[1] for chunk in encoder.clip.tokenize(PROMPT)[key] for pair in chunk}
    assert (weights != {1.0}) == encoder.known.weights


WORDS = st.sampled_from(
    ["dog", "giraffe", "antidisestablishmentarianism", "a", "1girl", "café", "e\u0301cole", "Fluß", "日本語", "собака",
     "🦒", "👩\u200d🚀", "C++", "100%", "don't", "x_y", "<b>"]
)  # fmt: skip
GAPS = st.sampled_from([" ", "  ", "\n", ", ", " \\( ", " \\) ", " . "])
AROUND = st.sampled_from([("", ""), ("", ""), ("(", ")"), ("(", ":1.3)"), ("((", "):0.5)")])
MARKS = set("(),.:\\0123456789[]")  # what may share a token with a word: weights and escapes as text, templates


@st.composite
def prompts(draw) -> tuple[str, list[tuple[int, int]]]:
    """A prompt with weights, escapes, and words that are repeated, and the spans of its words."""
    text, spans = "", []
    for word in draw(st.lists(WORDS, min_size=1, max_size=draw(st.sampled_from([3, 12, 60])))):
        before, behind = draw(AROUND)
        start = len(text) + len(before)
        spans.append((start, start + len(word)))
        text += before + word + behind + draw(GAPS)
    return text, spans


@settings(max_examples=3, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=prompts())
def test_decoding_the_rows_of_a_word_gives_it_back(encoder, case):
    (prompt, spans), clip = case, encoder.clip
    tokens, ids = tokenize(clip, prompt), emitted(clip, prompt)
    assert set(tokens.context.held) <= set(tokens)
    for span in spans:
        word, rows = plain(prompt[slice(*span)]), set(tokens.context.of(positions_in(span, tokens)))
        for key, held in tokens.context.held.items():
            there = [ids[key][position] for position, where in held.items() if rows & set(where)]
            cut_off = not there and len(spans) > 20 and encoder.name in CUTS
            if encoder.name in JOINS_WORDS or cut_off or encoder.unknown[key] & set(there):
                continue
            before, found, behind = decoded(clip, key, there).partition(word)
            assert found or encoder.name in CUTS, (prompt, span, there)
            assert set(before) | set(behind) <= MARKS, (prompt, span, there)


def test_prompts_without_words_have_no_subjects(encoder):
    for prompt in ("", " \n", "()"):
        tokens = tokenize(encoder.clip, prompt)
        assert parse(prompt, tokens).items == ()
        assert tokens.context.length > 0


def host_tokenizers() -> dict[str, type]:
    """The host's tokenizers of prompts: all classes that tokenize for a CLIP, not those of one encoder inside it."""
    package = importlib.import_module("comfy.text_encoders")
    modules = [f"comfy.text_encoders.{each.name}" for each in pkgutil.iter_modules(package.__path__)]
    inside = importlib.import_module("comfy.sd1_clip").SDTokenizer
    loaded = [importlib.import_module(name) for name in (*modules, "comfy.sdxl_clip", "comfy.sd1_clip")]
    classes = [each for module in loaded for each in vars(module).values() if isinstance(each, type)]
    made = [each for each in classes if hasattr(each, "tokenize_with_weights") and each.__module__.startswith("comfy.")]
    mixed_in = {base for each in made if issubclass(each, inside) for base in each.__mro__}
    return {f"{each.__module__}.{each.__name__}": each for each in made if each not in mixed_in}


def test_every_text_encoder_of_the_host_is_mapped_or_refused_by_name(comfy, capsys):
    mapped = {".".join(path_of(encoder.tokenizer)) for encoder in ENCODERS.values()}
    found = host_tokenizers()
    refused = {path for path, kind in found.items() if {each.__name__ for each in kind.__mro__} & set(UNREADABLE)}
    with capsys.disabled():
        print(f"\n| text encoder | tokenizer | rows of '{PROMPT}' | row 0 is token | weights |\n|---|---|---|---|---|")
        for name in HERE:
            known, weights = ENCODERS[name], "yes" if ENCODERS[name].weights else "no"
            print(f"| {name} | {known.data} | {known.rows} | {known.first[1]} of {known.first[0]} | {weights} |")
        for path in sorted(refused):
            print(f"| {path.rpartition('.')[2]} | refused | | | |")
    assert set(found) - mapped - refused == set(), "map or refuse the host's new text encoder"
    assert mapped & refused == set()
    if installed().pinned:
        assert mapped <= set(found)
        assert set(UNREADABLE) <= {each.__name__ for kind in found.values() for each in kind.__mro__} | {
            "Gemma3_12BTokenizer"
        }


@pytest.mark.parametrize("name", sorted(UNREADABLE))
def test_encoders_that_cannot_be_read_are_refused_with_their_reason(comfy, name):
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer = type(f"{name}_", (type(name, (), {}),), {})()
    with pytest.raises(ValueError, match=re.escape(UNREADABLE[name])):
        tokenize(clip, "a dog")
