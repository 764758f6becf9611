"""Saliency: shapes that contradict each other are refused; steps are put together; intensities are relative."""

import pytest
import torch

from explainable_latents.nodes.core.maps.saliency import Saliency, intensity, joined, over_steps, smooth_upsample


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
    total = calls[1].with_maps(torch.full((2, 1, 2, 2), 0.25))
    mean = over_steps(calls, "mean", total)
    assert mean.maps[0, 0].tolist() == [[3, 1], [1, 1]]
    assert (mean.step, mean.sigma) == (None, 2.0)
    assert over_steps(calls, "last", total) is calls[1]
    each = over_steps(calls, "each", total)
    assert each.labels == ("dog, step 0", "beach, step 0", "dog, step 3", "beach, step 3")
    assert each.maps[2, 0, 0, 0] == 5
    summed = over_steps(calls, "sum", total)
    assert summed is total
    with pytest.raises(ValueError, match="'all' is not one of: mean, last, each, sum"):
        over_steps(calls, "all", total)
    with pytest.raises(ValueError, match="no model call"):
        over_steps([], "mean", total)


def test_selecting_keeps_maps_and_labels_together():
    picked = saliency(7.0).select((1,))
    assert picked.labels == ("beach",)
    assert picked.maps[0, 0, 1, 1] == 7


def refined(seed: int, powers: int = 3, step: int = 0) -> Saliency:
    """Maps refined so often, with those before."""
    maps = torch.rand((powers + 1, 2, 1, 4, 3), generator=torch.Generator().manual_seed(seed)).unbind(0)
    return Saliency(maps[-1], ("dog", "beach"), 1.0, step, (4, 3), 8, powers, maps[:-1])


def test_each_power_that_is_kept_can_be_taken_alone():
    given = refined(0)
    assert given.powers == range(4)
    assert given.nbytes == 4 * given.maps.nbytes
    for power, maps in enumerate(given.every):
        alone = given.at_power(power)
        assert torch.equal(alone.maps, maps)
        assert (alone.refined, alone.less_refined, alone.powers) == (power, (), range(power, power + 1))
    with pytest.raises(ValueError, match="no maps with refine 4, only with 0, 1, 2, 3: set refine on the node"):
        given.at_power(4)
    with pytest.raises(ValueError, match="no maps with refine 1, only with 3"):
        given.at_power(3).at_power(1)
    assert saliency().at_power(0).maps.shape == saliency().maps.shape


def test_whatever_is_done_with_maps_is_done_with_the_less_refined_ones():
    calls = [refined(0), refined(1, step=4)]
    total = refined(2)
    changed = {
        "selected": lambda calls: calls[0].select((1,)),
        "words": lambda calls: calls[0].of_words("beach"),
        "mapped": lambda calls: calls[0].mapped(lambda maps: 2 * maps + 1),
        **{how: lambda calls, how=how: over_steps(calls[:2], how, calls[2]) for how in ("mean", "last", "each", "sum")},
    }
    for name, change in changed.items():
        found = change([*calls, total])
        assert found.powers == range(4), name
        for power in found.powers:
            alone = change([each.at_power(power) for each in (*calls, total)])
            assert torch.equal(found.at_power(power).maps, alone.maps), name
            assert found.labels == alone.labels
    assert calls[0].with_maps(total.maps).powers == range(3, 4)


def test_less_refined_maps_are_joined_only_where_all_have_them():
    both = [refined(0), refined(1).at_power(3)]
    found = joined(both, torch.cat, ("a", "b", "c", "d"))
    assert found.powers == range(3, 4)
    assert torch.equal(found.maps, torch.cat([each.maps for each in both]))


@pytest.mark.parametrize("less", [(torch.zeros(2, 1, 2, 2),), (torch.zeros(2, 1, 2, 3),) * 2])
def test_less_refined_maps_of_another_shape_or_number_are_refused(less):
    with pytest.raises(ValueError, match="of 2 powers do not belong to maps of shape"):
        Saliency(torch.zeros(2, 1, 2, 2), ("dog", "beach"), 1.0, None, (2, 2), 8, 2, less)


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
