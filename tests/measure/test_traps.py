"""Tests of the traps that were found in the code of the peers. There is one test per trap, and it is named after it."""

import dataclasses
import inspect

import cv2
import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from potgan.common.errors import UserError
from potgan.measure import evaluate
from potgan.measure.inception import InceptionNetwork, cached_features, inception_score
from potgan.measure.ssim import masked_ssim, ssim
from potgan.settings.protocols import PROTOCOLS
from potgan.training import loop

PATN, PG2, GFLA, CLEAN = (PROTOCOLS[name] for name in ("patn", "pg2", "gfla", "clean"))


def pictures(seed: int, count: int = 4, height: int = 128, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return np.stack([cv2.GaussianBlur(image, (0, 0), 2) for image in noise])


def test_1_the_generated_image_sets_its_own_ssim_scale() -> None:
    """If the contrast of a result is reduced, the range of PATN's SSIM shrinks with it. A fixed range stays the same."""
    target = pictures(1)
    pale = (target // 4 + 96).astype(np.uint8)
    own = [
        structural_similarity(
            t, p, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
            data_range=int(p.max()) - int(p.min()),
        )
        for t, p in zip(target, pale, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(target, pale, PATN.ssim), own, atol=1e-9)
    assert (ssim(target, pale, CLEAN.ssim) > ssim(target, pale, PATN.ssim)).all()
    assert PATN.metric_id("ssim") != CLEAN.metric_id("ssim")


def test_2_white_margins_raise_ssim_by_what_arithmetic_says() -> None:
    """With margins, 176 columns become 256. A score s becomes about (176 s + 80) / 256.

    The 80 white columns against white columns score 1.
    """
    target, generated = pictures(2, 2, 256, 176), pictures(3, 2, 256, 176)
    generated[:, 0, :2] = [[0], [255]]  # the range is the whole one, so white margins do not widen it
    plain = ssim(target, generated, PATN.ssim)
    padded = ssim(evaluate.in_frame(target, PATN), evaluate.in_frame(generated, PATN), PATN.ssim)
    np.testing.assert_allclose(padded, (176 * plain + 80) / 256, atol=0.03)
    assert evaluate.in_frame(target, PATN).shape[1:3] == (256, 256)
    assert evaluate.in_frame(target, CLEAN) is target
    assert "pad-256" in PATN.metric_id("ssim")


def test_3_mask_ssim_has_a_floor_of_one_minus_the_dilated_masks_area() -> None:
    """The images are two unrelated noises. SSIM is 1 outside the mask (grown by the window), and about 0 inside."""
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 256, (2, 128, 64, 3), dtype=np.uint8) for _ in range(2))
    mask = np.zeros((2, 128, 64), np.uint8)
    mask[:, 40:90, 20:44] = 1
    grown = cv2.dilate(mask[0], np.ones((11, 11), np.uint8))[5:-5, 5:-5].mean()
    scores = masked_ssim(a, b, mask, CLEAN.ssim)
    assert (scores > 1 - grown).all()
    assert (scores < 1 - mask[0].mean() + 0.1).all()
    assert PG2.metric_id("mask_ssim") != PATN.metric_id("mask_ssim")  # the masks have another recipe and another owner


def test_4_inception_score_depends_on_order_splits_and_the_bias() -> None:
    rng = np.random.default_rng(5)
    # The images are sorted by identity.
    logits = np.repeat(rng.normal(0, 4, (10, 30)), 20, axis=0) + rng.normal(0, 0.1, (200, 30))
    shuffled = logits[rng.permutation(200)]
    assert inception_score(shuffled, 10)[0] > 1.5 * inception_score(logits, 10)[0]
    assert inception_score(logits + rng.normal(0, 2, 30), 10)[0] != pytest.approx(inception_score(logits, 10)[0])
    assert all(p.inception_splits == 10 for p in PROTOCOLS.values())


def test_5_a_jpeg_strip_changes_result_and_target_and_clean_refuses_it() -> None:
    from potgan.settings.protocols import unmet_demands

    target, generated = pictures(6), pictures(7)

    def jpeg(image: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])[1], cv2.IMREAD_COLOR)

    both = [np.stack([jpeg(i) for i in images]) for images in (target, generated)]
    assert np.abs(ssim(*both, CLEAN.ssim) - ssim(target, generated, CLEAN.ssim)).max() > 1e-4
    assert unmet_demands(CLEAN, "jpeg", "strip")
    assert (PATN.targets, CLEAN.targets) == ("strip", "dataset")


def test_6_no_stale_statistics_and_the_last_part_of_a_batch_counts(tmp_path) -> None:
    from test_inception import MeanColour

    network = MeanColour()
    images = pictures(8, 5, 16, 8)
    features, _ = network(images, batch_size=2)  # the batches have 2, 2 and 1 images
    assert len(features) == 5
    cached_features(network, images, None, tmp_path)
    retrained = images.copy()
    retrained[4] = 0
    assert not np.array_equal(cached_features(network, retrained, None, tmp_path), features)


def test_7_the_imagenet_inception_is_no_fid_network(tmp_path) -> None:
    """torchvision's own Inception has 1,000 classes and other blocks, so its weights are refused."""
    from torchvision.models import inception_v3

    weights = inception_v3(weights=None, init_weights=False).state_dict()
    torch.save(weights, tmp_path / "imagenet.pth")
    with pytest.raises(UserError, match="does not hold the weights of inception-2015-12-05"):
        InceptionNetwork(tmp_path / "imagenet.pth")


def test_8_the_real_set_of_fid_is_in_its_name() -> None:
    assert GFLA.fid_reference == "train"
    assert GFLA.metric_id("fid").endswith("-train")
    assert PROTOCOLS["potgan"].fid_reference == "targets"
    assert GFLA.metric_id("fid") != PROTOCOLS["potgan"].metric_id("fid")
    other = dataclasses.replace(PROTOCOLS["potgan"], fid_reference="train")
    assert other.metric_id("fid") != PROTOCOLS["potgan"].metric_id("fid")


def test_9_training_never_sees_test_pairs() -> None:
    """A model cannot be selected by the test metric (Fig. 10) if training is given no test pairs."""
    names = set(inspect.signature(loop.train).parameters)
    assert "validation" in names
    assert not any("test" in name for name in names)
    from potgan.pipeline import stages

    source = inspect.getsource(stages.train)
    assert '"test"' not in source
