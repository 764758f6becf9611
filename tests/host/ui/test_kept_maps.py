"""The maps that are kept for the browser."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.maps.saliency import Saliency


def maps(side: int) -> Saliency:
    return Saliency(torch.rand(1, 1, side, side), ("dog",), 1.0, None, (side, side))


def test_the_oldest_go_where_they_take_too_much_and_too_large_ones_are_not_kept(comfy):
    from explainable_latents.nodes.host.ui.kept_maps import KeptMaps

    kept, small, large = KeptMaps(3 * 4 * 64), maps(8), maps(100)
    for name in "abc":
        kept.keep(name, small)
    assert torch.equal(kept.get("a").shown.maps, small.maps)
    kept.keep("d", small)
    assert [name for name in "abcd" if kept.get(name) is not None] == ["b", "c", "d"]
    kept.keep("e", large)
    assert [name for name in "abcde" if kept.get(name) is not None] == ["b", "c", "d"]
    assert [name for name in "abcdef" if kept.is_too_large(name)] == ["e"]
    assert kept.get("f") is None


def test_names_of_too_large_maps_go_too_when_there_are_many_newer_ones(comfy):
    from explainable_latents.nodes.host.ui.kept_maps import KeptMaps

    kept, large = KeptMaps(4, most_names=3), maps(8)
    for name in "abcde":
        kept.keep(name, large)
    assert [name for name in "abcde" if kept.is_too_large(name)] == ["c", "d", "e"]


def test_of_a_view_only_its_own_values_are_kept_and_later_changes_do_not_reach_them(comfy):
    from explainable_latents.nodes.host.ui.kept_maps import KeptMaps

    kept, whole = KeptMaps(4 * 64), torch.rand(100, 1, 8, 8)
    view = maps(8).with_maps(whole[3:4])
    kept.keep("a", view)
    expected = view.maps.clone()
    whole.zero_()
    assert torch.equal(kept.get("a").shown.maps, expected)
    assert kept.get("a").shown.maps.untyped_storage().nbytes() == 4 * 64


def test_what_a_node_puts_out_counts_where_it_is_not_what_it_shows(comfy):
    from explainable_latents.nodes.host.ui.kept_maps import KeptMaps

    kept, shown, output = KeptMaps(3 * 4 * 64), maps(8), maps(8)
    kept.keep("a", maps(8))
    kept.keep("b", shown, output)
    assert torch.equal(kept.get("b").output.maps, output.maps)
    assert torch.equal(kept.get("b").shown.maps, shown.maps)
    kept.keep("c", maps(8), output)
    assert [name for name in "abc" if kept.get(name) is not None] == ["c"]


def test_less_refined_maps_are_kept_and_counted(comfy):
    from explainable_latents.nodes.host.ui.kept_maps import KeptMaps

    kept, three = KeptMaps(5 * 4 * 64), [maps(8).maps for _ in range(3)]
    refined = Saliency(three[2], ("dog",), 1.0, None, (8, 8), 8, 2, tuple(three[:2]))
    kept.keep("a", maps(8))
    kept.keep("b", maps(8))
    kept.keep("c", refined)
    assert [name for name in "abc" if kept.get(name) is None] == []
    kept.keep("d", maps(8))
    assert [name for name in "abcd" if kept.get(name) is None] == ["a"]
    for power, expected in enumerate(three):
        found = kept.get("c").shown.at_power(power).maps
        assert torch.equal(found, expected)
        assert found.data_ptr() != expected.data_ptr()


@pytest.mark.parametrize(
    ("steps", "shape", "powers"), [(8, (128, 1, 128, 128), [8]), (3, (8, 2, 16, 16), [0, 1, 2, 3])]
)
def test_so_many_maps_that_less_refined_ones_would_make_them_coarser_are_kept_alone(sent, steps, shape, powers):
    from explainable_latents.nodes.host.ui.inspector import inspector
    from explainable_latents.nodes.host.ui.kept_maps import KEPT

    labels = tuple(f"word {i}" for i in range(shape[0]))
    each = torch.rand(shape)
    given = Saliency(each, labels, 1.0, None, shape[-2:], 8, steps, (each,) * steps)
    file = inspector(given, None, "fire", "shared")["el_inspector"][0]["file"]
    assert list(KEPT.get(file).shown.powers) == powers


def test_overlays_of_two_runs_keep_each_its_own(sent):
    from explainable_latents.nodes.host.ui.inspector import inspector
    from explainable_latents.nodes.host.ui.kept_maps import KEPT

    runs = [maps(5), maps(6)]
    names = [inspector(each, None, "fire", "shared")["el_inspector"][0]["file"] for each in runs]
    assert names[0] != names[1]
    for name, run in zip(names, runs, strict=True):
        assert torch.equal(KEPT.get(name).shown.maps, run.maps)
        assert KEPT.get(name).output is KEPT.get(name).shown


@pytest.mark.parametrize("client", [None, "a program that has gone"])
def test_without_a_browser_nothing_is_kept(sent, client):
    from explainable_latents.nodes.host.ui.inspector import inspector
    from explainable_latents.nodes.host.ui.kept_maps import KEPT

    sent.server.client_id = client
    file = inspector(maps(5), None, "fire", "shared")["el_inspector"][0]["file"]
    assert KEPT.get(file) is None
