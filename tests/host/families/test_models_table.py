"""The README's table of models and what works with them: made from the families' records, and each cell tried."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.families.family import FAMILIES, family_of
from explainable_latents.nodes.host.families.offers import BLOCKS, EDITING, GRADIENTS, KEYS
from explainable_latents.nodes.host.one_call import probe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.families.test_transformers import SUBJECTS
from tests.host.families.transformers import known, noise, prompt, sample, small
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import random_unet

README = Path(__file__).resolve().parents[3] / "README.md"
KNOWN = known()
COLUMNS = {
    "maps, probes, masks while sampling, masked latent": lambda family, network: True,
    "refined": lambda family, network: bool(family.site_names(network, family.picture_kind)),
    "output space": lambda family, network: family.words_have_output,
    "words not in the prompt": lambda family, network: KEYS in family.offers,
    "Abs-Grad-SAM": lambda family, network: GRADIENTS in family.offers,
    "editing": lambda family, network: EDITING in family.offers,
    "points, regions taught": lambda family, network: BLOCKS in family.offers,
}


@pytest.fixture(scope="module")
def models(comfy):
    """Every small network once, the UNet's first."""
    return {"SD 1.x": random_unet(), **{name: small(name) for name in KNOWN}}


def cells(model) -> tuple[bool, ...]:
    """What works with a model, by its family's record."""
    family, network = family_of(model), model.model.diffusion_model
    return tuple(column(family, network) for column in COLUMNS.values())


def test_the_readmes_table_says_of_every_family_what_its_record_says(models):
    rows: dict[tuple[bool, ...], list[str]] = {}
    for family in FAMILIES:
        found = {cells(model) for model in models.values() if family_of(model) is family}
        assert len(found) <= 1, family.name
        for each in found:
            rows.setdefault(each, []).append(family.name)
    for each, names in rows.items():
        print("|", " | ".join(["; ".join(names), *("yes" if cell else "–" for cell in each)]), "|")
    written = [line.strip("| ").split(" | ") for line in README.read_text(encoding="utf-8").splitlines()]
    (head,) = [i for i, row in enumerate(written) if row[1:] == list(COLUMNS)]
    table = {}
    for names, *marks in written[head + 2 :]:
        if len(marks) != len(COLUMNS):
            break
        table[tuple(mark == "yes" for mark in marks)] = names.split("; ")
        assert set(marks) <= {"yes", "–"}
    if {family.name for family in FAMILIES} == {name for names in rows.values() for name in names}:
        assert table == rows
    else:  # an older host does not have all of them
        assert all(set(names) <= set(table[each]) for each, names in rows.items())


@pytest.mark.parametrize("name", KNOWN)
def test_what_the_table_says_works(models, name):
    """The probe; and a mask that is found while it samples, refined where that can be, outside of which the latent is
    the reference's at the end. What the record says cannot be is refused."""
    model = models[name]
    _, refined, output, *_ = cells(model)
    start, positive = noise(name), prompt(name)
    with torch.inference_mode():
        maps = probe(model, positive, {"samples": start}, SUBJECTS, 0.5, 1, refine=int(refined)).maps
    size = start.shape[-2:]
    assert maps.shape == (2, 1, *size)
    assert (maps.sum((-2, -1)) - 1).abs().max() < 1e-5
    if not refined:
        with pytest.raises(ValueError, match="what the picture attends to in itself cannot be seen"):
            observe(model.clone(), SUBJECTS, refine=1)
    if not output:
        with pytest.raises(ValueError, match="words have no output"):
            observe(model.clone(), SUBJECTS, space="output")
    reference, observed = noise(name, seed=4), model.clone()
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping(), refine=int(refined))
    report = MaskedLatent(masking, reference, "1", KEEP, REFERENCE).install(observed)
    made, plain = (sample(name, each, cfg=1.0, start=start) for each in (observed, model))
    (found,) = [each.mask for each in report.manipulations(made)]
    inside = found.reshape(1, 1, *[1] * (start.ndim - 4), *size) == 1
    assert 0.05 < inside.float().mean() < 0.95
    # on its way into the model and out again the reference is scaled and rounded
    assert (made - torch.where(inside, plain, reference)).abs().max() < 1e-5 * reference.abs().max()
