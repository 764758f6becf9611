"""Saliency: shapes that contradict each other are refused; steps are put together; intensities are relative."""

import pytest
import torch

from explainable_latents.nodes.core.maps.saliency import Saliency, intensity, over_steps, smooth_upsample


def saliency(value=1.0, step=0, sigma=1.0):
    maps = torch.tensor([[[[value, 1.0], [1.0, 1.0]]], [[[1.0, 1.0], [1.0, value]]]])
    return Saliency(maps, ("dog", "beach"), sigma, step, (2, 2))


@pytest.mark.parametrize(
    ("maps", "grid", "message"),
    [
        (torch.zeros(2, 1, 2, 2), (2, 3), "do not lie on the latent grid"),
        (torch.zeros(3, 1, 2, 2), (2, 2), "3 saliency maps but 2 labels: dog, beach"),
        (torch.zeros(2, 2, 2), (2, 2), "float32 of shape"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.float16), (2, 2), "got torch.float16"),
    ],
)
def test_contradictions_are_refused(maps, grid, message):
    with pytest.raises(ValueError, match=message):
        Saliency(maps, ("dog", "beach"), 1.0, None, grid)


def test_mean_last_each_and_sum_over_steps():
    calls = [saliency(1.0, 0, 9.0), saliency(5.0, 3, 2.0)]
    total = torch.full((2, 1, 2, 2), 0.25)
    mean = over_steps(calls, "mean", total)
    assert mean.maps[0, 0].tolist() == [[3, 1], [1, 1]]
    assert (mean.step, mean.sigma) == (None, 2.0)
    assert over_steps(calls, "last", total) is calls[1]
    each = over_steps(calls, "each", total)
    assert each.labels == ("dog, step 0", "beach, step 0", "dog, step 3", "beach, step 3")
    assert each.maps[2, 0, 0, 0] == 5
    summed = over_steps(calls, "sum", total)
    assert (summed.maps is total, summed.step, summed.sigma) == (True, None, 2.0)
    with pytest.raises(ValueError, match="'all' is not one of: mean, last, each, sum"):
        over_steps(calls, "all", total)
    with pytest.raises(ValueError, match="no model call"):
        over_steps([], "mean", total)


def test_selecting_keeps_maps_and_labels_together():
    picked = saliency(7.0).select((1,))
    assert picked.labels == ("beach",)
    assert picked.maps[0, 0, 1, 1] == 7


def test_intensity_counts_in_multiples_of_the_mean():
    assert intensity(saliency(5.0))[0, 0].tolist() == [[2.5, 0.5], [0.5, 0.5]]
    channels = Saliency(
        torch.tensor([1.0, 3.0]).reshape(1, 1, 2, 1, 1).expand(1, 1, 2, 2, 2), ("a",), 1.0, None, (2, 2)
    )
    assert torch.equal(intensity(channels), torch.ones(1, 1, 2, 2))
    zero = Saliency(torch.zeros(1, 1, 2, 2), ("a",), 1.0, None, (2, 2))
    assert torch.equal(intensity(zero), torch.zeros(1, 1, 2, 2))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_broken_maps_are_named(bad):
    with pytest.raises(ValueError, match="dog, beach has negative or infinite"):
        intensity(saliency(bad))


def test_upsampling_stays_within_the_maps_range():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = 1
    big = smooth_upsample(maps, (33, 47))
    assert big.shape == (1, 1, 33, 47)
    assert big.min() == 0
    assert 0.9 < big.max() <= 1


def test_maps_are_chosen_by_word_whatever_their_step():
    labels = ("dog, step 1", "Beach, step 1", "dog, step 2", "Beach, step 2")
    given = Saliency(torch.rand(4, 1, 2, 2), labels, 1.0, None, (2, 2))
    assert given.of_words(" beach").labels == ("Beach, step 1", "Beach, step 2")
    assert torch.equal(given.of_words("Beach").maps, given.maps[[1, 3]])
    assert given.of_words("beach, dog,").labels == labels
    assert given.of_words(" ") is given
    with pytest.raises(ValueError, match="no map of 'cat', 'cow'; there are maps of: dog, Beach"):
        given.of_words("dog, cat, cow")


def test_a_word_names_all_that_are_alike_and_a_number_one_of_them():
    labels = ("dog#1", "Dog#2", "cat", "cat (scores)", "cow (scores)", "dog#1, step 2")
    given = Saliency(torch.rand(6, 1, 2, 2), labels, 1.0, None, (2, 2))
    for words, found in {
        "dog": (0, 1, 5),
        "DOG#2": (1,),
        "cat": (2,),
        "cat (scores)": (3,),
        "cow, dog#1": (0, 4, 5),
    }.items():
        assert given.of_words(words).labels == tuple(labels[i] for i in found), words
    with pytest.raises(ValueError, match="no map of 'dog#3'; there are maps of: dog#1, Dog#2, cat"):
        given.of_words("dog#3")
    with pytest.raises(ValueError, match="no map of 'cow'; there are"):
        given.select((0,)).of_words("cow")


def test_the_error_for_words_that_are_not_there_lists_those_that_are():
    given = Saliency(torch.rand(2, 1, 2, 2), ("dog", "Beach"), 1.0, None, (2, 2))
    with pytest.raises(ValueError, match="no map of 'cat', 'cow'; there are maps of: dog, Beach"):
        given.of_words("dog, cat, cow")
