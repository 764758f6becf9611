"""Every number of the tables against scikit-image or torchmetrics called directly, with networks from files."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn
from torchmetrics.functional.multimodal import clip_score
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from tests.tools.evaluate.description import Overrides, read_description
from tests.tools.evaluate.jobs import all_jobs
from tests.tools.evaluate.measures import Outcome, measure_all
from tests.tools.evaluate.networks import Networks, Seen, load_networks
from tests.tools.evaluate.tables import (
    Group,
    comparable,
    csv_text,
    fid,
    inception_score,
    json_values,
    kid,
    markdown,
    summaries,
)

from .conftest import AGGREGATED, BASELINE

WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "channel_axis": -1}
NOTHING = load_networks(None, 2048, None)


@pytest.fixture(scope="module")
def toy():
    return load_networks("toy", 2048, None)


def features(count=40, width=12, shift=0.0, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_sets_equal_torchmetrics_called_with_the_network():
    """The network itself goes into torchmetrics; we give it what the network saw."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10)).requires_grad_(False)
    real, made = (torch.rand(30, 3, 8, 8, generator=torch.Generator().manual_seed(i)) * (1 + i) for i in (1, 2))
    direct = FrechetInceptionDistance(network, normalize=True, input_img_size=(3, 8, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kernel, score = KernelInceptionDistance(network, subsets=1, subset_size=30), InceptionScore(network, splits=1)
        for metric in (direct, kernel):
            metric.update(real, real=True)
            metric.update(made, real=False)
        score.update(made)
        expected = direct.compute(), kernel.compute()[0], score.compute()[0]
    assert fid(network(real), network(made)) == pytest.approx(float(expected[0]), rel=1e-5)
    assert kid(network(real), network(made)) == pytest.approx(float(expected[1]), rel=1e-5)
    assert inception_score(network(made)) == pytest.approx(float(expected[2]), rel=1e-5)


@pytest.mark.parametrize("width", [12, 192])  # fewer and more features than pictures
def test_fid_of_a_set_with_itself_is_zero_and_grows_with_the_shift(width):
    real = features(width=width)
    assert fid(real, real) == pytest.approx(0.0, abs=1e-4)
    distances = [fid(real, features(width=width, shift=s, seed=1)) for s in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert fid(real, real + 2.0) == pytest.approx(width * 4.0, rel=1e-4)


def test_kid_of_one_distribution_is_about_zero_and_grows_with_the_shift():
    real = features(60)
    near, *far = [kid(real, features(60, shift=s, seed=1)) for s in (0.0, 0.5, 1.0, 2.0)]
    assert abs(near) < 0.2 < far[0] < far[1] < far[2]


def test_kid_of_sets_of_different_sizes_is_the_same_every_time():
    values = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        values.append(kid(features(30), features(20, seed=1)))
    assert values[0] == values[1]


def test_inception_score_is_the_number_of_classes_that_are_surely_seen():
    assert inception_score(100 * torch.eye(7)) == pytest.approx(7.0, rel=1e-3)
    assert inception_score(torch.ones(7, 7)) == pytest.approx(1.0)


def made_of(job):
    """A result like a real one: the reference with another brightness and noise."""
    reference = job.case.source.load()
    noise = np.random.default_rng(job.case.source.seed).normal(0, 12, reference.image.shape)
    return Image.fromarray((reference.image * 0.8 + noise).clip(0, 255).astype(np.uint8))


def jobs_of(describe, **changes):
    return all_jobs(read_description(str(describe(**changes)), Overrides()))


def test_likeness_equals_scikit_image(describe):
    jobs = jobs_of(describe, keep="subject")
    found = measure_all(jobs, lambda job: Outcome(made_of(job), [], 1.5), NOTHING)
    for job, measured in zip(jobs, found, strict=True):
        reference, result = job.case.source.load(), np.asarray(made_of(job))
        inside = reference.mask
        psnr = peak_signal_noise_ratio(reference.image, result, data_range=255)
        kept = peak_signal_noise_ratio(reference.image[inside], result[inside], data_range=255)
        ssim, similarity = structural_similarity(reference.image, result, full=True, **WANG)
        inner = (slice(5, -5),) * 2
        expected = {
            "psnr": psnr,
            "ssim": ssim,
            "psnr_kept": kept,
            "ssim_kept": similarity.mean(-1)[inner][inside[inner]].mean(),
            "seconds": 1.5,
        }
        assert measured.values == pytest.approx(expected, abs=1e-3)


def test_the_surroundings_leave_out_both_subjects(describe):
    """Painted over are the reference's subject and one that the judge sees elsewhere; the rest is the same."""
    (job,) = jobs_of(describe)[:1]
    reference = job.case.source.load()
    elsewhere = np.zeros((128, 128), bool)
    elsewhere[:30, :30] = True
    pixels = reference.image.copy()
    pixels[reference.mask | elsewhere] = 0
    outcome = Outcome(Image.fromarray(pixels), [], 0.0)
    kept = []
    for mask in (elsewhere, np.zeros((128, 128), bool)):
        seen = Seen(torch.zeros(2), None, "dog", "beach", torch.from_numpy(mask))
        networks = Networks(lambda picture, seen=seen: seen, None, "")
        kept.append(measure_all([job], lambda _: outcome, networks)[0].values)
    assert kept[0]["psnr_kept"] == math.inf
    assert kept[0]["ssim_kept"] > 0.9
    assert kept[1]["psnr_kept"] < 20 > kept[0]["psnr"]


def test_the_judge_sees_what_was_prompted(describe, toy):
    jobs = jobs_of(describe, real="drawn")
    for measured in measure_all(jobs, lambda job: Outcome(Image.fromarray(job.case.real[0].load().image), [], 0), toy):
        assert (measured.values["subject_seen"], measured.values["scene_seen"]) == (1.0, 1.0)
    for measured in measure_all(jobs, lambda job: Outcome(Image.fromarray(job.case.source.load().image), [], 0), toy):
        assert (measured.values["subject_seen"], measured.values["scene_seen"]) == (0.0, 1.0)
        assert measured.values["subject_iou"] > 0.8


def test_mask_iou_is_the_mean_over_the_masks(describe, toy):
    (job,) = jobs_of(describe)[:1]
    truth = job.case.source.load()
    half = truth.mask.copy()
    half[:, : np.nonzero(truth.mask)[1].min() + 20] = False
    expected = (1.0 + half.sum() / truth.mask.sum()) / 2
    outcome = Outcome(Image.fromarray(truth.image), [truth.mask, half], 0.0)
    values = measure_all([job], lambda _: outcome, toy)[0].values
    assert values["mask_iou"] == pytest.approx(expected, abs=1e-6)
    assert values["mask_iou_result"] == pytest.approx(expected, abs=0.1)


def test_masks_of_the_scene_are_turned_around(describe):
    methods = {"scene": {**AGGREGATED, "mask_shows": "scene"}}
    (job,) = jobs_of(describe, methods=methods)[:1]
    truth = job.case.source.load()
    small = ~truth.mask[::8, ::8]
    outcome = Outcome(Image.fromarray(truth.image), [~truth.mask, small], 0.0)
    assert measure_all([job], lambda _: outcome, NOTHING)[0].values["mask_iou"] > 0.8


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP of random weights, as transformers saves it."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(images, tokenizer).save_pretrained(folder)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(words), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    CLIPModel(config).save_pretrained(folder)
    return folder


def test_clip_score_from_a_folder(describe, clip_folder):
    from transformers import CLIPModel, CLIPProcessor

    networks = load_networks(None, 2048, clip_folder)
    jobs = jobs_of(describe)
    found = measure_all(jobs, lambda job: Outcome(made_of(job), [], 0.0), networks)
    model, processor = CLIPModel.from_pretrained(clip_folder), CLIPProcessor.from_pretrained(clip_folder)
    scores = []
    for job, measured in zip(jobs, found, strict=True):
        inputs = processor(text=[job.case.prompt], images=[made_of(job)], return_tensors="pt", padding=True)
        with torch.no_grad():
            seen = model(**inputs)
        expected = max(100 * float(seen.text_embeds[0] @ seen.image_embeds[0]), 0.0)
        assert measured.values["clip_score"] == pytest.approx(expected, abs=0.05)
        image = torch.from_numpy(np.asarray(made_of(job)).copy()).permute(2, 0, 1)
        direct = clip_score(image, job.case.prompt, networks.clip).detach()
        assert measured.values["clip_score"] == pytest.approx(float(direct), rel=1e-6)
        scores.append(measured.values["clip_score"])
    assert len(set(scores)) > 1


def test_a_clip_folder_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=f"{tmp_path} does not hold a CLIP model"):
        load_networks(None, 2048, tmp_path)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Inception weights as torch-fidelity publishes them, but random."""
    from torchvision.models import inception_v3

    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.manual_seed(0)
    torch.save(inception_v3(num_classes=1008, aux_logits=False, init_weights=False).state_dict(), file)
    return file


def test_inception_from_a_file_equals_torchmetrics(inception_file):
    networks = load_networks(str(inception_file), 64, None)
    pictures = torch.randint(0, 256, (2, 3, 4, 48, 56), generator=torch.Generator().manual_seed(0)).byte()
    real, made = pictures[0].movedim(1, 0), pictures[1].movedim(1, 0) // 2
    direct = FrechetInceptionDistance(64, feature_extractor_weights_path=str(inception_file))
    direct.update(real, real=True)
    direct.update(made, real=False)
    seen = [torch.stack([networks.features(x).features for x in each]) for each in (real, made)]
    assert seen[0].shape == (4, 64)
    assert fid(*seen) == pytest.approx(float(direct.compute()), rel=1e-3)
    assert networks.features(real[0]).logits.shape == (1008,)
    assert "layer 64 of Inception, weights.pth" in networks.about


class Pooled(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = x.float().mean((2, 3))
        return torch.cat([mean, mean * mean], 1), mean


def test_a_network_in_torchscript(tmp_path):
    torch.jit.script(Pooled()).save(str(tmp_path / "network.pt"))
    seen = load_networks(str(tmp_path / "network.pt"), 2048, None).features(torch.full((3, 8, 8), 10).byte())
    assert seen.features.tolist() == [10.0] * 3 + [100.0] * 3
    assert seen.logits.tolist() == [10.0] * 3


def test_a_file_that_is_no_network(tmp_path):
    file = tmp_path / "network.pt"
    for content in (b"", b"text", b"PK\x03\x04"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} is neither a TorchScript feature network nor"):
            load_networks(str(file), 2048, None)
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match=f"{file} is neither a TorchScript feature network nor"):
        load_networks(str(file), 2048, None)


class TestTables:
    """Two methods, of which one returns the references themselves."""

    METHODS = {"noisy": BASELINE, "same": AGGREGATED}

    @pytest.fixture
    def measured(self, describe, toy):
        def load(job):
            same = job.method.name == "same"
            result = Image.fromarray(job.case.source.load().image) if same else made_of(job)
            return Outcome(result, [job.case.source.load().mask] if same else [], 2.0)

        return measure_all(jobs_of(describe, methods=self.METHODS), load, toy)

    def test_groups_are_all_categories_and_scenes(self, measured):
        found = summaries(measured, list(self.METHODS))
        assert [(s.group.category, s.group.scene, s.pictures) for s in found if s.method == "same"] == [
            (None, None, 4),
            ("first", None, 2),
            ("second", None, 2),
            ("first", "beach", 1),
            ("first", "city", 1),
            ("second", "highway", 1),
            ("second", "forest", 1),
        ]
        (noisy,) = (s for s in found if s.group == Group() and s.method == "noisy")
        values = [m.values["ssim"] for m in measured if m.job.method.name == "noisy"]
        assert noisy.values["ssim"] == pytest.approx({"mean": np.mean(values), "median": np.median(values)})
        seen = [m.result.features for m in measured if m.job.method.name == "noisy"]
        real = [found.features for m in measured if m.job.method.name == "noisy" for found in m.real.values()]
        assert noisy.values["fid"]["set"] == fid(torch.stack(real), torch.stack(seen))

    def test_the_tables_are_laid_out_like_the_documents(self, measured):
        text = markdown(summaries(measured, list(self.METHODS)), list(self.METHODS))
        lines = text.splitlines()
        assert [line for line in lines if line.startswith("#")] == [
            "## All pictures",
            "## By category",
            "## Scenes of first",
            "## Scenes of second",
        ]
        assert "| metric |  | noisy | same |" in lines
        assert "| PSNR (dB) ↑ | mean | 1" in text
        assert next(line for line in lines if line.startswith("| FID")).endswith("| **0.00** |")
        assert any(line.startswith("| first (2) | FID ↓ | ") for line in lines)
        assert any(line.startswith("| beach (1) | SSIM ↑ | ") for line in lines)
        assert "| **∞** / **∞** |" in text
        assert "| mask IoU, reference ↑ | mean | – | 1.000 |" in lines
        assert "prompted subject seen ↑ |  | 0% | 0% |" in text
        assert "CLIP" not in text
        for line in lines:
            assert line.count("|") in (0, 5)

    def test_json_and_csv_hold_every_value(self, measured):
        values = json.loads(json.dumps(json_values(summaries(measured, list(self.METHODS))), allow_nan=False))
        assert len(values) == 7 * 2
        assert values[1]["values"]["psnr"] == {"mean": "Infinity", "median": "Infinity"}
        rows = csv_text(measured, {m.job.key: f"{i}.png" for i, m in enumerate(measured)}).splitlines()
        head = rows[0].split(",")
        assert head[:8] == ["method", "category", "scene", "subject", "picture", "prompt", "seed", "file"]
        first = dict(zip(head, rows[1].split(","), strict=True))
        assert first["method"] == "noisy"
        assert first["prompt"] == "dog on beach"
        assert float(first["psnr"]) == measured[0].values["psnr"]
        assert len(rows) == 1 + 8

    def test_only_what_every_method_finished_is_compared(self, measured):
        assert len(comparable(measured, list(self.METHODS))) == 8
        assert len(comparable(measured[:-1], list(self.METHODS))) == 6
        assert comparable(measured[:1], list(self.METHODS)) == []
