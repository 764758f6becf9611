"""Token positions in the host's own tokenizers, checked against what the host emits and what the tokens decode to."""

from __future__ import annotations

import importlib
import re
import time
import unicodedata

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.prompt_text import plain_text
from explainable_latents.nodes.core.words.tokens import positions_of
from explainable_latents.nodes.host.tokens import tokenize

TOKENIZERS = {
    "SD 1.x": ("comfy.sd1_clip", "SD1Tokenizer"),
    "SD 2.x": ("comfy.text_encoders.sd2_clip", "SD2Tokenizer"),
    "SDXL": ("comfy.sdxl_clip", "SDXLTokenizer"),
    "SD 3": ("comfy.text_encoders.sd3_clip", "SD3Tokenizer"),
    "Flux": ("comfy.text_encoders.flux", "FluxTokenizer"),
}
KEYS = {"SD 1.x": ["l"], "SD 2.x": ["h"], "SDXL": ["g", "l"], "SD 3": ["g", "l", "t5xxl"], "Flux": ["l", "t5xxl"]}
T5_UNKNOWN = 2


def make_clip(comfy, name: str, embeddings: str | None = None):
    """The host's CLIP object around one of its tokenizers, without the weights of a text encoder."""
    module, tokenizer = TOKENIZERS[name]
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer = getattr(importlib.import_module(module), tokenizer)(embedding_directory=embeddings)
    clip.tokenizer_options = {}
    return clip


@pytest.fixture(scope="module")
def clips(comfy) -> dict:
    return {name: make_clip(comfy, name) for name in TOKENIZERS}


def encoder(clip, key: str):
    return next(vars(clip.tokenizer)[name] for name in (key, f"clip_{key}") if name in vars(clip.tokenizer))


def emitted(clip, prompt: str) -> dict[str, list]:
    return {key: [pair[0] for chunk in chunks for pair in chunk] for key, chunks in clip.tokenize(prompt).items()}


def positions(clip, prompt: str, word: str, number: int = 0) -> dict[str, tuple[int, ...]]:
    start = [match.start() for match in re.finditer(re.escape(word), prompt)][number]
    return {key: positions_of((start, start + len(word)), found) for key, found in tokenize(clip, prompt).items()}


def squeeze(text: str) -> str:
    return "".join(text.split())


def fold(text: str) -> str:
    """The text without what versions of CLIP's tokenizer treat differently: case and invisible joiners."""
    return "".join(c for c in unicodedata.normalize("NFC", text.casefold()) if unicodedata.category(c) != "Cf")


# Letters that CLIP and T5 both know; emoji and other scripts, which T5 does not know, are mixed in.
LETTERS = st.text(st.sampled_from("abcdefghijklmnopqrstuvwxyzABCDEFGHXYZéüñçàÖ0123456789-'"), min_size=1, max_size=12)
STRANGE = st.sampled_from(
    ["🦒", "👩‍🚀", "日本語", "собака", "e\u0301cole", "שלום", "ﬁsh", "ΑΣ", "İx", "100%", "don't", "C++", "#1"]
)
KNOWN = st.sampled_from(["dog", "giraffe", "hummingbird", "antidisestablishmentarianism", "beach", "a", "on", "1girl"])
WORDS = st.one_of(LETTERS, STRANGE, KNOWN)
WEIGHTS = st.sampled_from(["", ":1.3", ":0.5", ": 1.1 ", ":-1", ":x"])
GAPS = st.sampled_from([" ", "  ", "\n", ", ", " \t", " \\( ", " \\) "])


@st.composite
def prompts(draw) -> tuple[str, list[tuple[int, int]]]:
    """A prompt of up to four chunks with weights, nesting and escapes, and the spans of its words."""
    words = draw(st.lists(WORDS, min_size=1, max_size=draw(st.sampled_from([4, 12, 150]))))
    parts, spans, length = [], [], 0

    def put(text: str) -> None:
        nonlocal length
        parts.append(text)
        length += len(text)

    for word in words:
        depth = draw(st.sampled_from([0, 0, 0, 1, 2]))
        put("(" * depth)
        spans.append((length, length + len(word)))
        put(word)
        for _ in range(depth):
            put(draw(WEIGHTS) + ")")
        put(draw(GAPS))
    return "".join(parts), spans


def check_word(hugging_face, key: str, prompt: str, span: tuple[int, int], ids: list[int]) -> None:
    """The ids decode to the word; a comma or colon right behind it may share its last token."""
    word = prompt[slice(*span)]
    decoded = squeeze(hugging_face.decode(ids, clean_up_tokenization_spaces=False))
    behind = prompt[span[1] : span[1] + 1]
    if behind in (",", ":") and not word.endswith(behind):
        decoded = decoded.removesuffix(behind)
    if key != "t5xxl":
        assert fold(decoded) == fold(word), (prompt, word, ids)
    elif T5_UNKNOWN not in ids:
        assert decoded == squeeze(unicodedata.normalize("NFKC", word)), (prompt, word, ids)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=prompts())
@example(case=("0 0 (':x) ", [(0, 1), (2, 3), (5, 6)]))
def test_tokens_decode_to_their_words_and_none_is_left_out(clips, name, case):
    clip, (prompt, spans) = clips[name], case
    tokens, found = emitted(clip, prompt), tokenize(clip, prompt)
    assert sorted(found) == KEYS[name]
    for key, there in found.items():
        hugging_face = encoder(clip, key).tokenizer
        for span in spans:
            check_word(
                hugging_face, key, prompt, span, [tokens[key][position] for position in positions_of(span, there)]
            )
        not_text = {encoder(clip, key).pad_token, *hugging_face.all_special_ids, hugging_face.get_vocab().get("▁")}
        not_text -= {T5_UNKNOWN} if key == "t5xxl" else set()
        text = {position for position, token in enumerate(tokens[key]) if token not in not_text}
        assert text <= {token.position for token in there}
        assert [token.start for token in there] == sorted(token.start for token in there)


@settings(max_examples=300, deadline=None)
@given(prompt=st.text(alphabet="ab (:)\\.1,\0\1\2\nx🦒", max_size=80))
def test_weights_and_escapes_are_read_as_the_host_reads_them(comfy, prompt):
    clip = importlib.import_module("comfy.sd1_clip")
    segments = clip.token_weights(clip.escape_important(prompt), 1.0)
    assert plain_text(prompt).text == "".join(clip.unescape_important(text) for text, _ in segments)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_byte_pair_splits_weights_and_escapes(clips, name):
    clip = clips[name]
    prompt = r"a (((giraffe)):1.3) and \(a dog\) at the (Champs-Élysées:0.8)"
    tokens = emitted(clip, prompt)
    for word in ("giraffe", "dog", "Champs-Élysées"):
        for key, found in positions(clip, prompt, word).items():
            decoded = encoder(clip, key).tokenizer.decode([tokens[key][position] for position in found])
            assert squeeze(decoded).lower() == word.lower()
    assert positions(clip, "a dog", "dog") == {key: (1,) if key == "t5xxl" else (2,) for key in KEYS[name]} or name in (
        "SD 3",
        "Flux",
    )


def test_positions_of_known_prompts(clips):
    assert positions(clips["SD 1.x"], "a giraffe on the beach", "beach") == {"l": (5,)}
    assert positions(clips["SDXL"], "a capybara on the beach", "capybara") == {"g": (2, 3, 4), "l": (2, 3, 4)}
    assert positions(clips["Flux"], "a giraffe on the beach", "giraffe") == {"l": (2,), "t5xxl": (3, 4, 5)}
    assert positions(clips["SD 2.x"], "dog and (dog:1.2)", "dog", 1) == {"h": (3,)}


def test_later_chunks_of_77(clips):
    prompt = "very " * 75 + "dog " + "very " * 74 + "cat " + "very " * 75 + "bird"
    clip = clips["SDXL"]
    assert positions(clip, prompt, "dog") == {"g": (77 + 1,), "l": (77 + 1,)}
    assert positions(clip, prompt, "cat") == {"g": (2 * 77 + 1,), "l": (2 * 77 + 1,)}
    assert positions(clip, prompt, "bird") == {"g": (3 * 77 + 2,), "l": (3 * 77 + 2,)}
    assert len(emitted(clip, prompt)["l"]) == 4 * 77


def test_a_word_cut_by_a_chunk_border(clips):
    clip = clips["SD 1.x"]
    word = "🦒🐕🐈🦜"
    prompt = "very " * 70 + word
    found = positions(clip, prompt, word)["l"]
    tokens = emitted(clip, prompt)["l"]
    assert found[0] < 76 < 78 <= found[-1]
    assert 76 not in found
    assert 77 not in found
    assert squeeze(encoder(clip, "l").tokenizer.decode([tokens[position] for position in found])) == word


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("prompt", ["", " ", "\n", "()", "(:1.2)", "((()))"])
def test_prompts_without_words(clips, name, prompt):
    found = tokenize(clips[name], prompt)
    assert sorted(found) == KEYS[name]
    assert parse(prompt, found).items == ()


def test_a_prompt_of_which_one_encoder_makes_no_token_has_none_there(clips):
    found = tokenize(clips["SD 3"], "▁ ▁")  # the mark that T5 itself puts in front of words
    assert found["t5xxl"] == ()
    assert len(found["l"]) > 0


def test_the_hosts_tokenizer_is_left_as_it_was(clips):
    clip = clips["SD 3"]
    before = {name: (value, value.tokenizer, dict(vars(value))) for name, value in vars(clip.tokenizer).items()}
    tokenize(clip, "a (dog:1.2) on embedding:none")
    for name, (value, hugging_face, attributes) in before.items():
        now = vars(clip.tokenizer)[name]
        assert now is value
        assert now.tokenizer is hugging_face
        assert vars(now) == attributes


def word_indices(text: str, word: str, tokenizer) -> list[int]:
    """The convention of google/prompt-to-prompt: walk the decoded tokens and the words between spaces side by side."""
    words, indices, current, length = text.split(" "), [], 0, 0
    for i, token in enumerate(tokenizer(text)["input_ids"][1:-1]):
        if words[current] == word:
            indices.append(i + 1)
        length += len(tokenizer.decode([token]).strip())
        if length >= len(words[current]):
            current, length = current + 1, 0
    return indices


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.from_regex(r"[a-z]{1,14}", fullmatch=True) | KNOWN.map(str.lower), min_size=1, max_size=20))
def test_plain_prompts_agree_with_prompt_to_prompt(clips, words):
    text = " ".join(words)
    tokenizer = encoder(clips["SD 1.x"], "l").tokenizer
    spans = tokenize(clips["SD 1.x"], text)["l"]
    for word in set(words):
        found = [
            positions_of(match.span(), spans) for match in re.finditer(rf"(?<![^ ]){re.escape(word)}(?![^ ])", text)
        ]
        indices = word_indices(text, word, tokenizer)
        if max(indices) < 76:
            assert sorted(position for each in found for position in each) == indices


HOSTILE = {
    "100,000 characters": "a dog on the beach " * 5263,
    "10,000 characters": "a dog on the beach, " * 500,
    "one word of 10,000": "a" * 10_000,
    "opening parentheses": "(" * 10_000,
    "closing parentheses": ")" * 10_000,
    "nested parentheses": "(" * 5_000 + ")" * 5_000,
    "alternating parentheses": "()" * 5_000,
    "nesting at the limit": ("(" * 50 + "dog" + ")" * 50) * 90,
    "colons": "(a:" * 3_333,
    "backslashes": "\\" * 10_000,
    "escapes": "\\(" * 5_000,
    "emoji": "🦒" * 10_000,
    "emoji families": "👩‍👩‍👧‍👦" * 1_400,
    "NUL": "\0" * 10_000,
    "NUL and the host's own marks": "\0\1\0\2" * 2_500,
    "right to left": "שלום עולם " * 1_000,
    "marks of direction": "\u202e\u200f dog \u202c" * 1_000,
    "combining marks": "e" + "\u0301" * 9_999,
    "commas": "," * 10_000,
    "hyphens": "a-" * 5_000,
    "quotes": "'" * 10_000,
    "dots": "." * 10_000,
    "white space": " \n\t" * 3_333,
    "line of nouns": "dog cat " * 1_250,
    "list of nouns": "dog, cat, " * 1_000,
    "marks between letters": "a'b\"c.d," * 1_250,
    "of of of": "a photo of " * 900,
    "and and and": "a dog and " * 1_000,
    "embeddings": " embedding:none" * 600,
    "an embedding without a name": "a dog embedding:",
    "half a character": "a dog \ud83d",
    "end of text": "<|endoftext|></s>" * 500,
}


PLAIN = "a photo of a dog on the beach, " * 320  # as long as most of them


def answered(clips, prompt: str) -> tuple[float, str]:
    """The processor's seconds that reading a prompt takes, and why it is refused, if it is."""
    began, message = time.process_time(), ""
    try:
        parse(prompt, tokenize(clips["SD 3"], prompt), override="dog" if "dog" in prompt else "")
    except ValueError as error:
        message = str(error)
    return time.process_time() - began, message


@pytest.fixture(scope="module")
def plain_seconds(clips) -> float:
    """What a plain prompt takes: a busy machine makes all of them slow."""
    parse("a dog", {})
    return answered(clips, PLAIN)[0]


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_prompts_take_less_time_than_ten_plain_ones(clips, plain_seconds, case):
    seconds, message = answered(clips, HOSTILE[case])
    assert seconds < 10 * plain_seconds  # one in whose length the time is squared takes hundreds of times as long
    assert len(message) < 1_000


@pytest.fixture
def embeddings(tmp_path) -> str:
    save_file({"emb_params": torch.randn(3, 768)}, tmp_path / "three.safetensors")
    save_file({"emb_params": torch.randn(768)}, tmp_path / "one.safetensors")
    save_file({"emb_params": torch.randn(2, 1024)}, tmp_path / "wide.safetensors")
    save_file({"clip_l": torch.randn(1, 768), "clip_g": torch.randn(2, 1280)}, tmp_path / "both.safetensors")
    return str(tmp_path)


def test_embeddings_known_unknown_and_of_several_vectors(comfy, embeddings):
    clip = make_clip(comfy, "SD 1.x", embeddings)
    prompt = "a embedding:three, (embedding:one:1.2) dog embedding:none, cat embedding:three"
    tokens = emitted(clip, prompt)["l"]
    vectors = [i for i, token in enumerate(tokens) if torch.is_tensor(token)]
    assert positions(clip, prompt, "embedding:three")["l"] == tuple(vectors[:3]) == (2, 3, 4)
    assert positions(clip, prompt, "embedding:three", 1)["l"] == tuple(vectors[4:])
    assert positions(clip, prompt, "embedding:one")["l"] == (6,)
    assert positions(clip, prompt, "dog")["l"] == (7,)
    assert positions(clip, prompt, "embedding:none")["l"] == ()
    assert positions(clip, prompt, "cat")["l"] == (vectors[4] - 1,)
    with pytest.raises(ValueError, match="'embedding:none' has no token in any text encoder"):
        parse(prompt, tokenize(clip, prompt), override="embedding:none")
    assert parse("a photo of embedding:three on the beach", tokenize(clip, "a photo of embedding:three on the beach"))
    subjects = parse(prompt, tokenize(clip, prompt), override="embedding:three#2, dog")
    assert [item.tokens["l"] for item in subjects.items] == [(7,), tuple(vectors[4:])]


def test_vectors_of_another_width_move_what_follows_as_the_hosts_encoder_does(comfy, embeddings):
    clip = make_clip(comfy, "SD 1.x", embeddings)
    prompt = "a embedding:wide dog"
    found = positions(clip, prompt, "dog")["l"]
    assert positions(clip, prompt, "embedding:wide")["l"] == ()
    config = {"num_hidden_layers": 1, "hidden_size": 768, "num_attention_heads": 2, "intermediate_size": 8}
    config |= {"hidden_act": "quick_gelu", "max_position_embeddings": 77, "eos_token_id": 49407}
    sd1_clip = importlib.import_module("comfy.sd1_clip")
    model = sd1_clip.SDClipModel(textmodel_json_config=config)
    table = model.transformer.get_input_embeddings().weight.data
    table.copy_(torch.randn(table.shape, generator=torch.Generator().manual_seed(0)))
    chunk = emitted(clip, prompt)["l"]
    rows, *_ = model.process_tokens([chunk], "cpu")
    dog = encoder(clip, "l").tokenizer("dog")["input_ids"][1]
    assert found == (2,)
    assert chunk[4] == dog
    assert torch.equal(rows[0, found[0]], table[dog])


def test_an_embedding_with_other_vectors_in_each_encoder(comfy, embeddings):
    clip = make_clip(comfy, "SDXL", embeddings)
    prompt = "a embedding:both dog"
    assert positions(clip, prompt, "embedding:both") == {"g": (2, 3), "l": (2,)}
    dog = parse(prompt, tokenize(clip, prompt), override="dog").items[0]
    assert dog.tokens == {"g": (4,), "l": (3,)}
    assert dog.positions() == (3, 4)


def test_the_host_cuts_the_longer_of_two_encoders(comfy, embeddings):
    clip = make_clip(comfy, "SDXL", embeddings)
    prompt = "very " * 73 + "embedding:both dog"
    lengths = {key: len(tokens) for key, tokens in emitted(clip, prompt).items()}
    assert lengths == {"l": 77, "g": 154}
    assert positions(clip, prompt, "embedding:both") == {"g": (74, 75), "l": (74,)}
    assert positions(clip, prompt, "dog") == {"g": (), "l": (75,)}


def changing(comfy, change):
    """A CLIP of SD 1.x that gives its tokenizer another text than the prompt."""
    module = importlib.import_module("comfy.sd1_clip")

    class Changed(module.SD1Tokenizer):
        def tokenize_with_weights(self, text, return_word_ids=False, **kwargs):
            return super().tokenize_with_weights(change(text), return_word_ids, **kwargs)

    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = Changed(), {}
    return clip


def test_a_template_around_the_prompt_is_learnt_even_if_it_has_the_prompts_words(comfy):
    clip = changing(comfy, lambda text: f"a dog (or (a cat:1.1)) : {text} by a dog")
    assert positions(clip, "a (dog:1.2)", "dog") == {"l": (8,)}
    assert positions(clip, "a dog a dog", "dog", 1) == {"l": (10,)}


@pytest.mark.parametrize("change", [str.upper, str.strip, lambda text: text[:5], lambda text: f"{text} and {text}"])
def test_an_encoder_that_changes_the_prompt_is_refused(comfy, change):
    with pytest.raises(ValueError, match="would be a guess"):
        tokenize(changing(comfy, change), " a dog on a beach")


def test_a_checkpoint_without_a_text_encoder_is_named():
    with pytest.raises(ValueError, match="the checkpoint has no text encoder"):
        tokenize(None, "a dog")
