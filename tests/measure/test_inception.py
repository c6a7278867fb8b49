"""Tests of Inception Score and FID against pytorch-fid, torch-fidelity, scipy and closed forms. They take about 10 s."""

from __future__ import annotations

import hashlib
import inspect
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from potgan.common.errors import UserError
from potgan.measure.inception import (
    FeatureNetwork,
    InceptionNetwork,
    cached_features,
    check_sample_size,
    frechet_distance,
    inception_score,
    kernel_inception_distance,
    measure_distribution,
)
from potgan.settings.protocols import PROTOCOLS

SQRTM_HAS_DISP = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters


def correlated(seed: int, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def with_moments(covariance: np.ndarray, mean: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return samples whose *sample* mean and covariance are exactly these."""
    d = len(mean)
    white = np.random.default_rng(seed).normal(size=(4 * d, d))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False)).T)
    return white @ np.linalg.cholesky(covariance).T + mean


# --- Frechet distance


@pytest.mark.parametrize("rank", [300, 40])
def test_both_ways_to_the_frechet_distance_agree_with_sqrtm(rank):
    """From 256 features on, eigenvalues are used. If a covariance is singular, singular values are used instead."""
    rng = np.random.default_rng(9)
    basis = rng.normal(size=(rank, 300))
    a, b = (rng.normal(size=(420, rank)) @ basis * scale for scale in (1.0, 1.3))
    s_a, s_b = (np.cov(x, rowvar=False) for x in (a, b))
    offset = 1e-10 * np.trace(s_a) * np.eye(300)  # SciPy needs the offset if the product is singular
    root = scipy.linalg.sqrtm((s_a + offset) @ (s_b + offset)).real
    theirs = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + np.trace(s_a + s_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-3)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-3)


@pytest.mark.skipif(not SQRTM_HAS_DISP, reason="pytorch-fid 0.3.0 calls sqrtm(disp=...), which this scipy has not")
@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (80, 90, 64), (500, 500, 3)])
def test_frechet_distance_equals_pytorch_fid(n, m, d):
    from pytorch_fid.fid_score import calculate_frechet_distance

    a, b = correlated(1, n, d), correlated(2, m, d)
    theirs = calculate_frechet_distance(
        a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False)
    )
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-8)


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (10, 12, 24), (5, 40, 24)])
def test_frechet_distance_equals_the_eigenvalue_form_also_for_singular_covariances(n, m, d):
    a, b = correlated(3, n, d), correlated(4, m, d)
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    trace_of_root = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariance_a + covariance_b) - 2 * trace_of_root
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_equal_covariances_leave_the_distance_of_the_means():
    a = correlated(5, 100, 7)
    shift = np.arange(7) / 3
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum(), abs=1e-9)


def test_diagonal_covariances_have_a_closed_form():
    variance_a, variance_b = np.array([1.0, 4.0, 0.25, 9.0]), np.array([4.0, 1.0, 0.25, 16.0])
    a = with_moments(np.diag(variance_a), np.zeros(4), seed=1)
    b = with_moments(np.diag(variance_b), np.array([1.0, 0, 0, 2.0]), seed=2)
    expected = 5 + ((np.sqrt(variance_a) - np.sqrt(variance_b)) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 30), st.integers(1, 20))
def test_frechet_distance_is_a_symmetric_distance_that_knows_no_rotation(seed, n, m, d):
    a, b = correlated(seed, n, d), correlated(seed + 1, m, d)
    distance = frechet_distance(a, b)
    scale = a.var() + b.var() + 1
    assert distance >= 0
    assert frechet_distance(b, a) == pytest.approx(distance, abs=1e-9 * d * scale)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * d * scale)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance, abs=1e-9 * d * scale)


def test_one_image_has_no_covariance():
    with pytest.raises(UserError, match="1 and 5 images"):
        frechet_distance(np.ones((1, 3)), np.ones((5, 3)))


def test_sample_size_is_checked_against_the_features():
    assert check_sample_size(2049, 2048) is None
    assert "2048 images through 2048 features" in check_sample_size(2048, 2048)


# --- Inception Score


@pytest.mark.parametrize(("n", "splits"), [(100, 10), (103, 10), (37, 5), (12, 1), (10, 10)])
def test_inception_score_equals_torch_fidelity_and_scipy(n, splits):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = 4 * np.random.default_rng(n).normal(size=(n, 20))
    mean, spread = inception_score(logits, splits)
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=splits, shuffle=False)
    assert mean == pytest.approx(theirs["inception_score_mean"], rel=1e-10)
    assert spread == pytest.approx(theirs["inception_score_std"], rel=1e-8, abs=1e-12)

    probabilities = scipy.special.softmax(logits, axis=1)
    scores = []
    for i in range(splits):
        part = probabilities[i * n // splits : (i + 1) * n // splits]
        scores.append(math.exp(np.mean([scipy.stats.entropy(p, part.mean(axis=0)) for p in part])))
    assert mean == pytest.approx(np.mean(scores), rel=1e-10)
    assert spread == pytest.approx(np.std(scores), rel=1e-8, abs=1e-12)


def test_equal_images_score_one():
    logits = np.tile(np.random.default_rng(0).normal(size=(1, 9)), (20, 1))
    assert inception_score(logits, 4) == pytest.approx((1, 0), abs=1e-12)


@pytest.mark.parametrize("certainty", [50.0, 1e4])  # with 1e4, all other probabilities underflow to 0
def test_certain_and_evenly_spread_images_score_the_number_of_classes(certainty):
    logits = np.tile(certainty * np.eye(6), (5, 1))
    assert inception_score(logits, 5) == pytest.approx((6, 0), abs=1e-9)


def test_splits_are_contiguous_so_the_order_matters():
    of_one_class_each = certainty = 50 * np.repeat(np.eye(4), 5, axis=0)
    assert inception_score(of_one_class_each, 4)[0] == pytest.approx(1)
    assert inception_score(certainty.reshape(4, 5, 4).transpose(1, 0, 2).reshape(20, 4), 5)[0] == pytest.approx(4)


def test_fewer_images_than_splits_are_a_user_error():
    with pytest.raises(UserError, match="9 images cannot be cut into 10 splits"):
        inception_score(np.zeros((9, 4)), 10)


# --- The 2015 Inception network, with random weights of the file's shapes


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A state dict like the one in pytorch-fid's weight file.

    It comes from pytorch-fid's own constructor, whose loader is patched.
    """
    from pytorch_fid import inception

    torch.manual_seed(0)
    kept = {}

    class Stop(Exception):
        pass

    def capture(*_, **__):
        frame = inspect.currentframe().f_back
        network = frame.f_locals["inception"]
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif name.endswith(("running_mean", "bias")):
                value.normal_(0, 0.1)
            elif value.ndim == 4:
                torch.nn.init.kaiming_normal_(value)
            elif value.ndim == 2:
                value.normal_(0, 0.05)
        kept["weights"] = {name: value.clone() for name, value in network.state_dict().items()}
        return kept["weights"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "load_state_dict_from_url", capture)
        theirs = inception.InceptionV3([3]).eval()
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(kept["weights"], path)
    return path, kept["weights"], theirs


def test_features_equal_pytorch_fid_and_logits_have_no_bias(random_weights):
    path, weights, theirs = random_weights
    network = InceptionNetwork(path, "cpu")
    images = np.random.default_rng(1).integers(0, 256, (3, 40, 24, 3), dtype=np.uint8)
    features, logits = network(images, batch_size=2)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float())[0][:, :, 0, 0].double().numpy()
    assert features.shape == (3, 2048)
    assert features.dtype == np.float64
    assert expected.std() > 1e-3
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * expected.max())
    assert logits.shape == (3, 1008)
    np.testing.assert_allclose(logits, features @ weights["fc.weight"].double().numpy().T, rtol=1e-4, atol=1e-4)
    assert np.abs(weights["fc.bias"].numpy()).max() > 0.1  # such a bias would change the logits visibly
    assert network.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (network.id, network.dimension) == ("inception-2015-12-05", 2048)


def test_batches_of_1_7_and_50_give_the_same_scores_and_both_libraries_agree(random_weights):
    """FID and IS of two sets through one random network are measured in several ways.

    Our code measures them in three batch sizes. torch-fidelity measures FID from the features of pytorch-fid, and IS from our
    logits. FID(A, A) is 0.
    """
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_isc import isc_features_to_metric

    path, _, theirs = random_weights
    network = InceptionNetwork(path, "cpu")
    rng = np.random.default_rng(2)
    a, b = (rng.integers(low, 256, (20, 32, 24, 3), dtype=np.uint8) for low in (0, 90))
    ours = {size: (network(a, size), network(b, size)) for size in (1, 7, 50)}
    fids = {size: frechet_distance(x[0], y[0]) for size, (x, y) in ours.items()}
    scores = {size: inception_score(x[1], 10)[0] for size, (x, _) in ours.items()}
    for size in (7, 50):
        assert fids[size] == pytest.approx(fids[1], rel=1e-6)
        assert scores[size] == pytest.approx(scores[1], rel=1e-6)
    with torch.no_grad():
        x, y = (
            theirs(torch.from_numpy(images.transpose(0, 3, 1, 2) / 255).float())[0][:, :, 0, 0].double()
            for images in (a, b)
        )
    statistics = [fid_features_to_statistics(features) for features in (x, y)]
    of_torch_fidelity = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fids[50] == pytest.approx(of_torch_fidelity, rel=1e-3)
    logits = torch.from_numpy(ours[50][0][1])
    theirs_is = isc_features_to_metric(logits, splits=10, shuffle=False)["inception_score_mean"]
    assert scores[50] == pytest.approx(theirs_is, rel=1e-3)
    assert frechet_distance(ours[50][0][0], ours[7][0][0]) < 1e-3


def test_a_file_that_holds_no_inception_weights_is_a_user_error(tmp_path):
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(3)}, other)
    text = tmp_path / "page.pth"
    text.write_text("<html>not found</html>")
    for path in (other, text):
        with pytest.raises(UserError, match=f"{path.name}: does not hold the weights") as caught:
            InceptionNetwork(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no such weight file"):
        InceptionNetwork(tmp_path / "absent.pth")


# --- Both scores of a set of pairs


class MeanColour(FeatureNetwork):
    """A network whose features and logits can be worked out by hand.

    The features are the mean colour, and the logits are a tenth of it.
    """

    id = "synthetic-classifier"
    dimension = 3
    weights_sha256 = "0" * 64
    device = torch.device("cpu")
    passes = 0

    def forward(self, images):
        self.passes += len(images)
        features = images.double().mean(dim=(2, 3))
        return features, features / 10


def test_measure_distribution_masks_both_sides_and_names_its_protocol():
    rng = np.random.default_rng(2)
    generated = rng.integers(0, 256, (24, 8, 6, 3), dtype=np.uint8)
    targets = rng.integers(0, 256, (24, 8, 6, 3), dtype=np.uint8)
    masks = rng.integers(0, 2, (24, 8, 6), dtype=np.uint8)
    network = MeanColour()
    results = measure_distribution(generated, targets, masks, network, PROTOCOLS["potgan-synthetic"])
    assert network.passes == 4 * 24

    def colours(images):
        return images.reshape(24, -1, 3).mean(axis=1)

    masked_generated, masked_targets = generated * masks[..., None], targets * masks[..., None]
    assert results["fid"]["value"] == pytest.approx(frechet_distance(colours(generated), colours(targets)))
    assert results["mask_fid"]["value"] == pytest.approx(
        frechet_distance(colours(masked_generated), colours(masked_targets))
    )
    mean, spread = inception_score(colours(masked_generated) / 10, 10)
    assert (results["mask_is"]["value"], results["mask_is"]["spread"]) == pytest.approx((mean, spread))
    assert results["is"]["value"] == pytest.approx(inception_score(colours(generated) / 10, 10)[0])
    assert {metric: entry["protocol"] for metric, entry in results.items()} == {
        "is": "is-synthetic",
        "mask_is": "mask-is-synthetic",
        "fid": "fid-synthetic",
        "mask_fid": "mask-fid-synthetic",
        "kid": "kid-synthetic",
    }
    low, high = results["kid"]["interval"]
    assert low <= results["kid"]["value"] <= high
    assert all(entry["n"] == 24 and "warning" not in entry for entry in results.values())


def test_pairs_with_an_empty_mask_are_in_no_masked_distribution():
    """The masked values are those of the other 20 pairs alone. The unmasked ones are of all 24."""
    rng = np.random.default_rng(5)
    generated, targets = rng.integers(0, 256, (2, 24, 8, 6, 3), dtype=np.uint8)
    masks = np.ones((24, 8, 6), np.uint8)
    masks[20:] = 0
    protocol = PROTOCOLS["potgan-synthetic"]
    found = measure_distribution(generated, targets, masks, MeanColour(), protocol)
    alone = measure_distribution(generated[:20], targets[:20], None, MeanColour(), protocol)
    assert found["mask_fid"]["value"] == pytest.approx(alone["fid"]["value"])
    assert found["mask_is"]["value"] == pytest.approx(alone["is"]["value"])
    assert {metric: entry["n"] for metric, entry in found.items()} == {
        "is": 24, "fid": 24, "kid": 24, "mask_is": 20, "mask_fid": 20
    }  # fmt: skip
    assert found["mask_fid"]["warning"] == "4 of 24 pairs are left out, because their masks are empty"
    masks[1:] = 0
    assert measure_distribution(generated, targets, masks, MeanColour(), protocol)["mask_fid"]["value"] is None


def test_generated_images_equal_to_the_targets_have_distance_zero_and_few_images_a_warning():
    images = np.random.default_rng(3).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)
    network = MeanColour()
    network.dimension = 10
    results = measure_distribution(images, images, np.ones((10, 8, 6)), network, PROTOCOLS["potgan-synthetic"])
    assert results["fid"]["value"] == pytest.approx(0, abs=1e-8)
    assert results["fid"]["value"] == results["mask_fid"]["value"]
    assert results["is"]["value"] == results["mask_is"]["value"]
    assert "10 images through 10 features" in results["fid"]["warning"]
    assert "warning" not in results["is"]


@pytest.mark.parametrize(("n", "m", "d", "size"), [(300, 250, 16, 100), (1200, 1100, 8, 1000), (60, 60, 64, 60)])
def test_kid_equals_torch_fidelitys_on_its_own_subsets(n, m, d, size):
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = correlated(1, n, d), correlated(2, m, d)
    theirs = kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=20, kid_subset_size=size, rng_seed=2020, verbose=False
    )
    value, low, high = kernel_inception_distance(a, b, subsets=20, subset_size=size)
    assert value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    assert low < high


def test_kids_interval_is_the_estimates_of_resampled_images():
    """The test computes the estimates in a simple way.

    It makes the same multinomial draws, and repeats each image as often as it is drawn. Pairs of an image with itself are left out.
    """
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(12, 4)), rng.normal(0.5, 1, (9, 4))
    draws = np.random.default_rng(2020)
    counts = [draws.multinomial(k, np.full(k, 1 / k), size=1000) for k in (12, 9)]

    def mean_kernel(x, y, same):
        kernel = ((x[0] @ y[0].T) / 4 + 1) ** 3
        return kernel[x[1][:, None] != y[1][None]].mean() if same else kernel.mean()

    estimates = []
    for count_a, count_b in zip(*counts, strict=True):
        x, y = (
            (v[np.repeat(np.arange(len(v)), c)], np.repeat(np.arange(len(v)), c))
            for v, c in ((a, count_a), (b, count_b))
        )
        estimates.append(mean_kernel(x, x, True) + mean_kernel(y, y, True) - 2 * mean_kernel(x, y, False))
    _, low, high = kernel_inception_distance(a, b, subsets=3)
    np.testing.assert_allclose((low, high), np.quantile(estimates, (0.025, 0.975)), rtol=1e-9)


def test_kid_is_near_zero_for_one_distribution_seeded_and_refuses_a_single_image():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(400, 6)), rng.normal(size=(500, 6))
    value, low, high = kernel_inception_distance(a, b)  # there are fewer images than in a subset
    assert low < 0 < high
    assert (value, low, high) == kernel_inception_distance(a, b)
    shifted = kernel_inception_distance(a, b + 1)
    assert shifted[1] > high
    narrow = kernel_inception_distance(*(np.random.default_rng(s).normal(size=(2000, 6)) for s in (2, 3)), subsets=2)
    assert narrow[2] - narrow[1] < high - low  # more images give a narrower interval
    with pytest.raises(UserError, match="each needs at least 2"):
        kernel_inception_distance(a[:1], b)
    assert np.isfinite(kernel_inception_distance(np.eye(2), np.eye(2))).all()


def test_features_are_cached_under_their_content_and_a_damaged_entry_is_measured_anew(tmp_path):
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
    masks = rng.integers(0, 2, (12, 8, 6), dtype=np.uint8)
    network = MeanColour()
    first = cached_features(network, images, None, tmp_path)
    np.testing.assert_array_equal(cached_features(network, images, None, tmp_path), first)
    assert network.passes == 12
    changed = images.copy()
    changed[3, 2, 1, 0] ^= 1
    # One image set has another pixel, one has another order, and one has masks.
    for other, mask in ((changed, None), (images[::-1], None), (images, masks)):
        cached_features(network, other, mask, tmp_path)
    assert network.passes == 48
    network.weights_sha256 = "1" * 64
    cached_features(network, images, None, tmp_path)
    assert network.passes == 60
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(cached_features(network, images, None, tmp_path), first)
    assert network.passes == 72
    assert not list(tmp_path.glob("*.partial"))


def test_protocol_clean_refuses_fid_of_too_few_images_and_gfla_wants_the_training_images():
    images = np.random.default_rng(5).integers(0, 256, (24, 8, 6, 3), dtype=np.uint8)
    network = MeanColour()
    network.id = "inception-2015-12-05"
    with pytest.raises(UserError, match="demands at least 2,049 images for 3 features, and there are 24"):
        measure_distribution(images, images, None, network, PROTOCOLS["clean"])
    without = measure_distribution(images, images, None, network, PROTOCOLS["gfla"])
    assert without["fid"]["value"] is None
    assert "all training images" in without["fid"]["reason"]
    train = np.random.default_rng(6).integers(0, 256, (30, 8, 6, 3), dtype=np.uint8)
    found = measure_distribution(images, images, None, network, PROTOCOLS["gfla"], iter([train[:16], train[16:]]))
    colours = [part.reshape(len(part), -1, 3).mean(axis=1) for part in (images, train)]
    assert found["fid"]["value"] == pytest.approx(frechet_distance(*colours))
    assert found["fid"]["n_real"] == 30
    assert "mask_fid" not in found


def test_a_network_that_is_not_the_protocols_is_refused():
    images = np.zeros((10, 8, 6, 3), np.uint8)
    with pytest.raises(ValueError, match="through inception-2015-12-05, not synthetic-classifier"):
        measure_distribution(images, images, images[..., 0], MeanColour(), PROTOCOLS["potgan"])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(1, 25))
def test_batches_do_not_change_features(n, batch_size):
    images = np.random.default_rng(n).integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
    features, logits = MeanColour()(images, batch_size)
    np.testing.assert_allclose(features, images.reshape(n, -1, 3).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(logits, features / 10)


def test_only_a_long_pass_shows_progress(capsys):
    MeanColour()(np.zeros((500, 2, 2, 3), np.uint8), batch_size=100)
    assert capsys.readouterr().err == ""
    MeanColour()(np.zeros((501, 2, 2, 3), np.uint8), batch_size=100)
    assert "synthetic-classifier: 6/6 batches" in capsys.readouterr().err


def test_images_of_a_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        MeanColour()(np.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match="of 0 and 1"):
        MeanColour()(np.zeros((2, 4, 4, 3), np.uint8), masks=np.full((2, 4, 4), 255))
    with pytest.raises(UserError, match="no images"):
        MeanColour()(np.zeros((0, 4, 4, 3), np.uint8))
