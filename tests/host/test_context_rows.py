"""Rows of encoded prompts where the host's encoders do something special, and in encoders that really encode."""

from __future__ import annotations

import importlib
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from explainable_latents.nodes.core.words.parsing import parse, table
from explainable_latents.nodes.core.words.tokens import positions_in
from explainable_latents.nodes.host.same_prompt import ParsedPrompt, require_same_prompt
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.families.transformers import sample, small
from tests.host.text_encoders import ENCODERS, build_tokenizer, host_class, host_clip
from tests.host.toy_sampling import latent


def rows(clip, prompt: str, word: str, number: int = 0) -> tuple[int, ...]:
    start = [match.start() for match in re.finditer(re.escape(word), prompt)][number]
    tokens = tokenize(clip, prompt)
    return tokens.context.of(positions_in((start, start + len(word)), tokens))


@pytest.fixture(scope="module")
def z_image(comfy):
    return host_clip("Z-Image")


@pytest.fixture(scope="module")
def qwen_image(comfy):
    return host_clip("Qwen-Image")


def test_parentheses_are_text_where_the_host_gives_no_weights(z_image):
    # <|im_start|> user \n | a | _( | dog | : ...
    assert rows(z_image, "a (dog:1.3)", "dog") == (5,)
    assert rows(z_image, "a (dog:1.3)", "1.3") == (7, 8, 9)
    assert rows(z_image, r"a \(dog\)", "dog") == rows(z_image, "a (dog)", "dog") == (5,)
    assert rows(z_image, "((((dog", "dog") == (4,)


def test_parentheses_that_are_text_may_be_nested_as_deep_as_one_likes(z_image):
    """Where they are weights the host would take minutes."""
    deep = "(" * 60 + " dog " + ")" * 60
    (row,) = rows(z_image, deep, "dog")
    assert 3 < row < 63  # behind the template; several parentheses make a token
    with pytest.raises(ValueError, match="nested deeper than 50"):
        tokenize(host_clip("Flux"), deep)


def test_a_prompt_that_brings_the_templates_own_marker_gets_no_template(qwen_image):
    marked = "<|im_start|>a dog"
    assert rows(qwen_image, marked, "dog") == (2,)
    assert tokenize(qwen_image, marked).context.length == 3
    whole = "<|im_start|>system\nx<|im_end|>\n<|im_start|>user\na dog<|im_end|>\n"
    assert rows(qwen_image, whole, "dog") == (1,)  # the host cuts up to the second marker, and "user" behind it
    assert rows(qwen_image, whole, "system") == ()


def test_a_word_that_the_template_has_too_is_that_of_the_prompt(qwen_image):
    assert rows(qwen_image, "the image of texture", "image") == (1,)
    assert rows(qwen_image, "image image", "image", 1) == (1,)


def test_letters_beyond_the_alphabet_and_repeated_words(z_image):
    prompt = "一只狗 🦒 dog, e\u0301cole dog"
    assert rows(z_image, prompt, "dog", 0) < rows(z_image, prompt, "dog", 1)
    assert set(rows(z_image, prompt, "🦒")).isdisjoint(rows(z_image, prompt, "狗"))
    assert rows(z_image, "very " * 1500 + "dog", "dog") == (1503,)


def test_embeddings_stand_where_the_templated_encoder_takes_them(comfy, tmp_path):
    save_file({"emb_params": torch.randn(3, 2560)}, tmp_path / "three.safetensors")
    clip = host_clip("Z-Image", str(tmp_path))
    prompt = "a embedding:three dog embedding:none cat"
    assert rows(clip, prompt, "embedding:three") == (5, 6, 7)
    assert rows(clip, prompt, "dog") == (8,)
    assert rows(clip, prompt, "embedding:none") == ()


def test_quoted_text_goes_to_an_encoder_that_has_no_rows_for_the_words(comfy):
    clip = host_clip("HunyuanImage")
    plain, quoted = 'a sign "dog"', "a sign dog"
    for prompt in (plain, quoted):
        tokens = tokenize(clip, prompt)
        assert list(tokens) == ["qwen25_7b"]
        assert tokens.context.length == len(clip.tokenize(prompt)["qwen25_7b"][0]) - 34
    assert "byt5" in clip.tokenize(plain)
    assert rows(clip, plain, "dog") == (3,)


@pytest.mark.parametrize(
    ("missing", "length", "found"),
    [({}, 154, (2, 78)), ({"t5": False}, 77, (2,)), ({"clip_l": False, "clip_g": False}, 77, (1,)),
     ({"clip_g": False}, 154, (2, 78)), ({"clip_l": False, "t5": False}, 77, (2,))],
)  # fmt: skip
def test_sd_3_is_asked_which_of_its_encoders_are_loaded(comfy, missing, length, found):
    known = replace(ENCODERS["SD 3"], model="sd3_clip.sd3_clip", options=missing)
    clip = comfy.sd.CLIP(no_init=True)
    clip.tokenizer, clip.tokenizer_options = build_tokenizer(known), {}
    clip.cond_stage_model = host_class(known.model)(**missing)(device="meta")
    tokens = tokenize(clip, "red dog")
    assert tokens.context.length == length
    assert rows(clip, "red dog", "dog") == found


def test_flux_2_pads_on_the_left_and_the_words_move(comfy):
    clip = host_clip("Flux.2")
    prompt = "a red dog"
    there = rows(clip, prompt, "dog")
    clip.tokenizer_options = {"mistral3_24b_min_length": 100}
    tokens = tokenize(clip, prompt)
    assert tokens.context.length == 100
    clip.tokenizer_options = {}
    assert [row + 100 - tokenize(clip, prompt).context.length for row in there] == [
        *tokens.context.of(positions_in((6, 9), tokens))
    ]


def test_a_prompt_that_hidream_cuts_leaves_its_last_words_out(comfy):
    clip = host_clip("HiDream")
    prompt = "dog " + "very " * 150 + "cat"
    tokens = tokenize(clip, prompt)
    assert tokens.context.length == 128
    assert parse(prompt, tokens, "dog, dog?", "rules").items[0].rows == (0,)
    with pytest.raises(ValueError, match="'cat' has no token"):
        parse(prompt, tokens, "cat", "rules")


def test_where_the_host_joins_words_the_node_says_so_and_a_word_has_all_tokens_with_a_part_of_it(comfy):
    clip = host_clip("HunyuanVideo")
    prompt = "a red dog on a sunny beach"
    tokens = tokenize(clip, prompt)
    ids = [pair[0] for pair in clip.tokenize(prompt)["llama"][0]]
    decoded = [clip.tokenizer.llama.tokenizer.decode([ids[95 + row]]).strip() for row in rows(clip, prompt, "dog")]
    right = host_class("hunyuan_video.LlamaTokenizerFast")  # the class that the host itself uses
    mistaken = right.from_pretrained(clip.tokenizer.llama.tokenizer.name_or_path)(" dog")["input_ids"][1:] != [5679]
    assert decoded == (["dd", "og"] if mistaken else ["dog"])
    assert bool(tokens.notes) == mistaken
    shown = table(parse(prompt, tokens, "dog", "rules"))
    assert shown.startswith("note: with the installed transformers") == mistaken


def test_the_hosts_encoder_is_left_as_it_was(z_image):
    model, tokenizer = z_image.cond_stage_model, z_image.tokenizer
    before = dict(vars(model)), dict(model.named_children()), dict(vars(tokenizer)), dict(vars(tokenizer.qwen3_4b))
    tokenize(z_image, "a dog")
    after = dict(vars(model)), dict(model.named_children()), dict(vars(tokenizer)), dict(vars(tokenizer.qwen3_4b))
    assert all(old.keys() == new.keys() for old, new in zip(before, after, strict=True))
    assert all(old[key] is new[key] for old, new in zip(before, after, strict=True) for key in old)


def test_an_encoder_that_another_pack_replaced_is_not_believed(z_image):
    class Replaced(type(z_image.cond_stage_model)):
        def encode_token_weights(self, tokens):
            return torch.full((1, 12, 8), 0.5), None

    clip = z_image.clone() if hasattr(z_image, "patcher") else type(z_image)(no_init=True)
    clip.tokenizer, clip.tokenizer_options = z_image.tokenizer, {}
    clip.cond_stage_model = Replaced(device="meta")
    with pytest.raises(ValueError, match="does not say which of its rows hold which token"):
        tokenize(clip, "a dog")


# Encoders that really encode: the host's own classes, a few numbers wide.

QWEN = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1, "num_key_value_heads": 1}
T5 = {"d_model": 32, "d_ff": 32, "d_kv": 16, "num_heads": 2, "num_layers": 2}
TINY = {
    "Z-Image": {"qwen3_4b_model_config": {**QWEN, "num_hidden_layers": 3}},
    "Klein 4B": {"qwen3_4b_model_config": {**QWEN, "num_hidden_layers": 28}},
    "Ovis": {"qwen3_2b_model_config": {**QWEN, "num_hidden_layers": 2}},
    "Chroma, PixArt": {"t5xxl_model_config": T5},
}


def tiny_clip(comfy, name: str):
    """A CLIP of the host with a small text encoder of random weights."""
    known = ENCODERS[name]
    model = host_class(known.model)
    model = model if isinstance(model, type) else model(**known.options)
    target = importlib.import_module("comfy.supported_models_base").ClipTarget(host_class(known.tokenizer), model)
    clip = comfy.sd.CLIP(target, model_options={"dtype": torch.float32, **TINY[name]})
    random = torch.Generator().manual_seed(0)
    for parameter in clip.cond_stage_model.parameters():
        # words weigh more than what the layers mix into them, as in trained encoders
        scale = 1.0 if parameter.shape[:1] > (10_000,) else 0.3 * (parameter.shape or (1,))[-1] ** -0.5
        made = torch.randn(parameter.shape, generator=random) * scale if parameter.ndim > 1 else torch.ones(())
        parameter.data.copy_(made)
    return clip


@pytest.fixture(scope="module")
def pixart(comfy):
    return tiny_clip(comfy, "Chroma, PixArt")


def changed_rows(clip, prompt: str, other: str) -> torch.Tensor:
    """How much every row of the encoded prompt changes with its words."""
    (one, _), (two, _) = (clip.encode_from_tokens_scheduled(clip.tokenize(each))[0] for each in (prompt, other))
    assert one.shape[1] == two.shape[1] == tokenize(clip, prompt).context.length
    return (one - two).norm(dim=-1)[0]


@pytest.mark.parametrize("name", ["Z-Image", "Klein 4B", "Ovis"])
def test_another_word_changes_rows_from_its_own_on_in_an_encoder_that_reads_forwards(comfy, name):
    clip, prompt = tiny_clip(comfy, name), "a red dog on a sunny beach"
    changes = changed_rows(clip, prompt, prompt.replace("dog", "cat"))
    (first,) = rows(clip, prompt, "dog")
    assert changes[:first].max() == 0
    assert changes[first] > 0.1 * changes.max()


def test_another_word_changes_its_own_row_most_in_an_encoder_that_reads_both_ways(pixart):
    prompt = "a red dog on a sunny beach"
    changes = changed_rows(pixart, prompt, prompt.replace("dog", "cat"))
    assert (int(changes.argmax()),) == rows(pixart, prompt, "dog")


def test_the_prompt_is_recognised_in_what_its_own_encoder_makes(pixart):
    prompt = "a red dog on a sunny beach"
    same, other = (pixart.encode_from_tokens_scheduled(pixart.tokenize(text)) for text in (prompt, prompt[2:]))
    for parsed in (ParsedPrompt(pixart, prompt), ParsedPrompt(pixart, prompt, same)):
        assert parsed.encoded.is_in(same[0][0])
        assert not parsed.encoded.is_in(other[0][0])


def test_another_number_of_rows_than_the_sampled_prompt_has_is_an_error_that_says_what_to_connect(pixart, toy):
    prompt = "a dog on the beach"
    subjects = replace(parse(prompt, tokenize(pixart, prompt)), source=ParsedPrompt(pixart, prompt))
    model = toy.model.clone()
    require_same_prompt(model, subjects, None, pytest.fail)
    with pytest.raises(ValueError, match=r"makes 7 rows of 'a dog on the beach'.* has 77.*\(CLIP and T5\)"):
        toy.stock(latent(), model=model, steps=1, denoise=1.0)


@pytest.mark.parametrize("how", ["other vectors", "other rows"])
def test_an_sd_clip_is_refused_for_a_transformer_that_reads_another_text(toy, how):
    """A word's row in CLIP says nothing about its row there, even if there are as many."""
    prompt, model = "a dog on the beach", small("Flux.1")
    subjects = replace(parse(prompt, tokenize(toy.clip, prompt)), source=ParsedPrompt(toy.clip, prompt))
    require_same_prompt(model, subjects, None, pytest.fail)
    width = toy.positive[0][0].shape[-1]
    assert width != 96
    shape, message = {
        "other vectors": ((1, 77, 96), rf"makes vectors of {width} numbers, .* sampled have 96: another text encoder"),
        "other rows": ((1, 256, width), r"makes 77 rows of 'a dog on the beach'.* has 256"),
    }[how]
    positive = [[torch.randn(shape, generator=torch.Generator().manual_seed(2)), {"pooled_output": torch.zeros(1, 64)}]]
    with pytest.raises(ValueError, match=message):
        sample("Flux.1", model, cfg=1.0, positive=positive)
