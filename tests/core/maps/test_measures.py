"""PSNR and SSIM against scikit-image and torchmetrics; what does not belong together is refused."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torchmetrics_ssim

from explainable_latents.nodes.core.maps.measures import compare

# What the documentation of scikit-image gives for the formula of Wang et al.
WANG = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0, "channel_axis": -1}


def pictures(batch=1, height=47, width=61, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    smooth = torch.rand(batch, channels, 7, 9, generator=generator)
    reference = torch.nn.functional.interpolate(smooth, (height, width), mode="bilinear").movedim(1, -1)
    image = (reference + 0.1 * torch.randn(reference.shape, generator=generator)).clamp(0, 1)
    return image, reference


def masks(batch=1, height=47, width=61, seed=1):
    return (torch.rand(batch, height, width, generator=torch.Generator().manual_seed(seed)) > 0.7).float()


@pytest.mark.parametrize(("height", "width"), [(47, 61), (64, 64), (11, 200)])
def test_whole_pictures_equal_scikit_image(height, width):
    image, reference = pictures(3, height, width)
    found = compare(image, reference)
    for i in range(3):
        a, b = image[i].numpy(), reference[i].numpy()
        assert found.psnr[i] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1.0), abs=1e-4)
        assert found.ssim[i] == pytest.approx(structural_similarity(b, a, **WANG), abs=1e-5)
    assert found.mean_psnr == pytest.approx(np.mean(found.psnr))
    assert found.mean_ssim == pytest.approx(np.mean(found.ssim))


def test_whole_pictures_equal_torchmetrics():
    image, reference = (x.movedim(-1, 1) for x in pictures())
    found = compare(image.movedim(1, -1), reference.movedim(1, -1))
    assert found.psnr[0] == pytest.approx(torchmetrics_psnr(image, reference, data_range=1.0).item(), abs=1e-4)
    # its mean also counts windows that hang over the border, filled with mirrored pixels: its map is compared
    _, similarity = torchmetrics_ssim(image, reference, data_range=1.0, return_full_image=True)
    assert found.ssim[0] == pytest.approx(similarity[..., 5:-5, 5:-5].mean().item(), abs=1e-5)


def test_a_region_equals_scikit_image_over_its_pixels():
    image, reference = pictures(2)
    region = masks(2)
    found = compare(image, reference, region)
    for i in range(2):
        a, b, inside = image[i].numpy(), reference[i].numpy(), region[i].numpy() > 0.5
        assert found.psnr[i] == pytest.approx(peak_signal_noise_ratio(b[inside], a[inside], data_range=1.0), abs=1e-4)
        similarity = structural_similarity(b, a, full=True, **WANG)[1].mean(axis=-1)
        assert found.ssim[i] == pytest.approx(similarity[5:-5, 5:-5][inside[5:-5, 5:-5]].mean(), abs=1e-5)


def test_what_lies_outside_the_region_does_not_count():
    _, reference = pictures()
    image = reference.clone()
    image[:, :, 30:] = 1 - image[:, :, 30:]
    left = torch.zeros(1, 47, 61)
    left[:, :, :24] = 1
    found = compare(image, reference, left)
    assert found.psnr == (float("inf"),)
    assert found.ssim[0] == pytest.approx(1.0)
    assert compare(image, reference, 1 - left).psnr[0] < 15


def test_a_white_mask_is_no_mask():
    image, reference = pictures(2)
    assert compare(image, reference, torch.ones(1, 47, 61)) == compare(image, reference)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 2e-2), (torch.bfloat16, 2e-1), (torch.float64, 1e-5)])
def test_other_dtypes_are_measured_in_float32(dtype, near):
    image, reference = pictures()
    expected = compare(image, reference)
    found = compare(image.to(dtype), reference.to(dtype), torch.ones(1, 47, 61, dtype=dtype))
    assert found.psnr[0] == pytest.approx(expected.psnr[0], abs=near)
    assert found.ssim[0] == pytest.approx(expected.ssim[0], abs=near)


def test_identical_pictures_are_infinitely_close():
    image, _ = pictures()
    found = compare(image, image.clone())
    assert (found.mean_psnr, found.mean_ssim) == (float("inf"), 1.0)
    assert found.text() == "PSNR ∞ (identical), SSIM 1.0000"


def test_a_batch_of_one_is_compared_with_every_other():
    image, reference = pictures(3)
    one = reference[:1]
    apart = [compare(image[i : i + 1], one) for i in range(3)]
    expected = tuple(found.psnr[0] for found in apart), tuple(found.ssim[0] for found in apart)
    for found in (compare(image, one), compare(one, image), compare(image, one, torch.ones(3, 47, 61))):
        assert found.psnr == pytest.approx(expected[0], abs=1e-5)
        assert found.ssim == pytest.approx(expected[1], abs=1e-6)


def test_the_text_has_a_line_per_picture():
    image, reference = pictures(2)
    image[1] = reference[1]
    lines = compare(image, reference).text().splitlines()
    assert lines[0].startswith("picture 1: PSNR 2")
    assert lines[1:] == [
        "picture 2: PSNR ∞ (identical), SSIM 1.0000",
        f"mean: PSNR ∞ (identical), SSIM {compare(image, reference).mean_ssim:.4f}",
    ]


def test_alpha_is_left_out():
    image, reference = pictures()
    with_alpha = torch.cat([image, torch.rand(1, 47, 61, 1)], -1)
    assert compare(with_alpha, reference) == compare(image, reference)


@pytest.mark.parametrize(
    ("image", "reference", "mask", "message"),
    [
        ((1, 20, 30, 3), (1, 24, 32, 3), None, "image 30×20, reference 32×24"),
        ((1, 20, 30, 3), (1, 20, 30, 3), (1, 64, 64), "image 30×20, reference 30×20, mask 64×64"),
        ((2, 20, 30, 3), (3, 20, 30, 3), None, "image 2, reference 3"),
        ((2, 20, 30, 3), (1, 20, 30, 3), (3, 20, 30), "image 2, reference 1, mask 3"),
        ((0, 20, 30, 3), (1, 20, 30, 3), None, "image 0, reference 1"),
        ((1, 20, 30, 1), (1, 20, 30, 3), None, "image has 1 channels, reference 3"),
        ((1, 20, 30), (1, 20, 30, 3), None, r"image has the shape .* got \(1, 20, 30\)"),
        ((1, 20, 30, 3), (1, 20, 30, 3), (20, 30), r"a mask has the shape .* got \(20, 30\)"),
        ((1, 8, 30, 3), (1, 8, 30, 3), None, "at least 11×11 pixels, got 30×8"),
    ],
)
def test_what_does_not_belong_together_is_refused(image, reference, mask, message):
    with pytest.raises(ValueError, match=message):
        compare(torch.rand(image), torch.rand(reference), None if mask is None else torch.ones(mask))


def test_an_empty_mask_is_refused():
    image, reference = pictures(2)
    mask = masks(2)
    mask[1] = 0.5
    with pytest.raises(ValueError, match=r"the mask is empty \(mask 2 of 2\)"):
        compare(image, reference, mask)
    mask[1, :5] = 1
    with pytest.raises(ValueError, match=r"empty but for the outermost 5 pixels.*mask 2 of 2"):
        compare(image, reference, mask)


def test_broken_values_are_refused():
    image, reference = pictures()
    image[0, 3, 4, 1] = float("nan")
    with pytest.raises(ValueError, match="image has values that are not finite"):
        compare(image, reference)
