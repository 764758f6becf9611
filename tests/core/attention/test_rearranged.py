"""Finding a text among rearranged keys, and the weights by which rows were mixed."""

import pytest
import torch

from explainable_latents.nodes.core.attention.rearranged import is_alike, key_positions, mixing_weights


def rows(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strength", [1.0, 0.35, 1.7])
def test_a_text_is_found_in_the_row_that_holds_it(dtype, strength):
    text, other = rows(1, 7, 32), rows(1, 7, 32, seed=1)
    context = torch.cat([other, text.to(dtype).to(torch.float32) * strength, other], dim=0).to(dtype)
    found = key_positions(context, text)
    assert found[0].tolist() == found[2].tolist() == [-1] * 7
    assert found[1].tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_repeated_text_counts_every_time_and_keys_behind_it_do_not():
    text = rows(1, 3, 16)
    context = torch.cat([text, text, rows(1, 2, 16, seed=1)], dim=1)
    assert key_positions(context, text).tolist() == [[0, 1, 2, 0, 1, 2, -1, -1]]


def test_of_a_text_joined_with_another_its_own_part_counts():
    text, other = rows(1, 3, 16), rows(1, 3, 16, seed=1)
    assert key_positions(torch.cat([other, text], dim=1), text).tolist() == [[-1, -1, -1, 0, 1, 2]]


def test_interleaved_keys_are_numbered_as_the_tokenizer_numbers_them():
    keys, values = rows(1, 4, 16), rows(1, 4, 16, seed=1)
    text = torch.stack([keys, values], dim=2).flatten(1, 2)
    assert key_positions(keys, text).tolist() == [[0, 1, 2, 3]]
    assert key_positions(torch.cat([keys, keys], dim=1), text).tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert key_positions(values, text).tolist() == [[-1, -1, -1, -1]]
    assert key_positions(text, text).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_a_text_that_differs_in_its_last_words_is_another_text():
    text = rows(1, 10, 64)
    other = text.clone()
    other[:, 8:] = rows(1, 2, 64, seed=1)
    assert (key_positions(other, text) == -1).all()
    assert (key_positions(-text, text) == -1).all()
    assert (key_positions(text[:, :9], text) == -1).all()


def test_noise_leaves_a_subject_where_it_is_and_another_text_does_not():
    text, columns = rows(2, 6, 64), torch.tensor([0, 0, 1, 1, 0, 0]).unsqueeze(1)
    noised = text + 0.3 * rows(2, 6, 64, seed=1)
    assert is_alike(torch.cat([noised, rows(2, 3, 64)], dim=1), text, columns)
    assert not is_alike(rows(2, 6, 64, seed=2), text, columns)
    moved = text.clone()
    moved[:, 3] = text[:, 4]
    assert not is_alike(moved, text, columns)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_weights_of_a_mixture_are_found_at_every_position(dtype, tolerance):
    # rows of different texts have most in common: begin-of-text takes most of the attention
    parts = (rows(1, 2, 5, 320) + 0.2 * rows(3, 2, 5, 320, seed=1)).to(dtype)
    masks = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(2))
    masks[0, :, :2] = 0
    masks /= masks.sum(0)
    mixed = (parts * masks.unsqueeze(-1).to(dtype)).sum(0)
    found = mixing_weights(parts, mixed)
    # tolerance: the products are rounded to the precision of the rows
    assert torch.allclose(found, masks, atol=tolerance)
    if dtype == torch.float32:
        assert (found[0, :, :2] == 0).all()


def test_equal_rows_share_their_weight():
    parts = rows(2, 1, 4, 16)
    parts = torch.stack([parts[0], parts[0], parts[1]])
    weights = mixing_weights(parts, 0.5 * parts[0] + 0.25 * parts[2])
    assert torch.allclose(weights, torch.tensor([0.25, 0.25, 0.25])[:, None, None].expand(3, 1, 4), atol=1e-5)


def test_what_is_no_mixture_of_the_rows_has_no_weights():
    parts = rows(2, 1, 4, 16)
    assert mixing_weights(parts, parts[0].roll(1, dims=1)) is None
    assert mixing_weights(parts, parts.sum(0) + 1) is None
