"""Inception Score and Frechet Inception Distance from one pass of a feature network (docs/decisions.md, D35, D36).

The formulas are the same for every network, but their values can be compared only if the network is the same. So each network
carries an id, and `measure_distribution` writes the protocol id of a metric beside each value.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from potgan.common.errors import UserError
from potgan.common.files import sha256_of, write_bytes
from potgan.common.progress import progress
from potgan.settings.protocols import Protocol

#: The number is raised whenever the features of a network for the same image change.
_FEATURES_VERSION = 1
#: The number of images above which progress is shown. A pass over fewer images ends before its progress can be read.
_PROGRESS_FROM = 500
_KERNEL_ROWS = 1024  # the number of rows of a kernel matrix that are held at a time
_RESAMPLES = 1000  # the number of bootstrap resamples

# ---------------------------------------------------------------------------------------------------------------------
# The two scores


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Return the Frechet distance of two Gaussians that are fitted to features (N, D) and (M, D).

    It is |mean_a - mean_b|^2 + tr(S_a) + tr(S_b) - 2 tr((S_a S_b)^(1/2)), in float64. The sample covariances S are divided by
    N - 1. The distance is at least 0, and it is 0 for equal sets.

    With S = R^T R, the last trace is the sum of the singular values of R_a R_b^T, since their squares are the eigenvalues of
    S_a S_b. This differs from pytorch-fid: there is no matrix square root, and nothing is added to the diagonal. So singular
    covariances (fewer images than features) are no special case, and equal sets give 0.

    Raises UserError if a set has fewer than 2 images. Source: Heusel et al. 2017, Eq. 6; docs/decisions.md, D36.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        raise ValueError(f"features must be (N, D) and (M, D), and are {features_a.shape} and {features_b.shape}")
    if min(len(features_a), len(features_b)) < 2:
        raise UserError(
            f"FID: the sets have {len(features_a)} and {len(features_b)} images, and a covariance needs at least 2; "
            "use more test pairs"
        )
    d = features_a.shape[1]
    distance = None
    if d >= _EIGENVALUES_FROM and min(len(features_a), len(features_b)) > d:
        distance = _distance_by_eigenvalues(features_a, features_b)
    if distance is None:
        mean_a, root_a = _mean_and_covariance_root(features_a)
        mean_b, root_b = _mean_and_covariance_root(features_b)
        trace_of_root = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
        distance = ((mean_a - mean_b) ** 2).sum() + (root_a**2).sum() + (root_b**2).sum() - 2 * trace_of_root
    return max(float(distance), 0.0)  # rounding can leave a value such as -1e-13


#: The number of features from which on the distance is computed by the eigenvalues of a symmetric matrix. For 2,048 features this
#: takes a third of the time of singular values, and an eighth of the time of SciPy's sqrtm (benchmarks/speed/inception.py).
_EIGENVALUES_FROM = 256


def _distance_by_eigenvalues(features_a: np.ndarray, features_b: np.ndarray) -> float | None:
    """Return the distance of two sets that have more images than features. Return None if the first covariance is singular.

    With S_a = L L^T, the eigenvalues of S_a S_b are those of the symmetric matrix L^T S_b L.
    """
    a, b = (torch.from_numpy(np.asarray(features, np.float64)) for features in (features_a, features_b))
    mean_a, mean_b = a.mean(dim=0), b.mean(dim=0)
    covariance_a, covariance_b = ((x - mean).T @ (x - mean) / (len(x) - 1) for x, mean in ((a, mean_a), (b, mean_b)))
    root, failed = torch.linalg.cholesky_ex(covariance_a)
    if failed.item():
        return None
    eigenvalues = torch.linalg.eigvalsh(root.T @ covariance_b @ root)
    trace_of_root = eigenvalues.clamp(min=0).sqrt().sum()
    difference = (mean_a - mean_b).square().sum()
    return float(difference + covariance_a.trace() + covariance_b.trace() - 2 * trace_of_root)


def _mean_and_covariance_root(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) and a triangular R (min(N, D), D), for which R^T R is the sample covariance."""
    features = np.asarray(features, np.float64)
    mean = features.mean(axis=0)
    return mean, np.linalg.qr((features - mean) / np.sqrt(len(features) - 1), mode="r")


def check_sample_size(n: int, d: int) -> str | None:
    """Return a warning if FID of `n` images through `d` features has a singular covariance, else None."""
    if n > d:
        return None
    return (
        f"FID of {n} images through {d} features: the covariance is singular, and the bias towards large values strong"
    )


def inception_score(logits: np.ndarray, splits: int) -> tuple[float, float]:
    """Return the mean and the (population) standard deviation of the Inception Score over the splits.

    The score of a split is exp(mean KL(p(y|x) || p(y))). It lies between 1 and C.

    logits: (N, C), before the softmax. splits: the number of contiguous parts, in the order of the rows. Part i holds the rows
    [i N // splits, (i + 1) N // splits).

    Raises UserError if there are fewer images than splits. Source: Salimans et al. 2016, inception_score.py as the peers use it;
    docs/decisions.md, D35.
    """
    n = len(logits)
    if n < splits:
        raise UserError(
            f"Inception Score: {n} images cannot be cut into {splits} splits; use at least {splits} test pairs"
        )
    log_p = torch.log_softmax(torch.from_numpy(np.asarray(logits, np.float64)), dim=1)
    scores = []
    for i in range(splits):
        part = log_p[i * n // splits : (i + 1) * n // splits]
        log_marginal = torch.logsumexp(part, dim=0) - np.log(len(part))
        # A class with probability 0 everywhere would give 0 (-inf - -inf), which is NaN. The limit of the term is 0.
        terms = torch.where(part.exp() > 0, part.exp() * (part - log_marginal), 0.0)
        scores.append(terms.sum(dim=1).mean().exp().item())
    return float(np.mean(scores)), float(np.std(scores))


# ---------------------------------------------------------------------------------------------------------------------
# The networks


class FeatureNetwork:
    """A network that turns images into features (for FID) and logits (for the Inception Score).

    A subclass sets `id` (as in `Protocol.feature_network`), `dimension` (D), `weights_sha256` (64 hexadecimal digits) and
    `device`, and it defines `forward`.
    """

    id: str
    dimension: int
    weights_sha256: str
    device: torch.device

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, D) and logits (B, C) of images (B, 3, H, W), which are uint8 on `device`."""
        raise NotImplementedError

    def __call__(
        self, images: np.ndarray, batch_size: int = 32, masks: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return features (N, D) and logits (N, C), float64, of images (N, H, W, 3) uint8 RGB.

        masks: (N, H, W) of 0 and 1. The images are first multiplied by them, batch by batch. None means no masks. Progress is shown
        for more than 500 images. Raises UserError if there are no images.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise ValueError(f"images must be (N, H, W, 3) uint8, and are {images.shape} {images.dtype}")
        if not len(images):
            raise UserError(f"{self.id}: there are no images to measure; the list of pairs is empty")
        if masks is not None and (masks.shape != images.shape[:3] or not ((masks == 0) | (masks == 1)).all()):
            raise ValueError(f"masks must be {images.shape[:3]} of 0 and 1, and are {masks.shape}")
        starts = range(0, len(images), batch_size)
        shown = progress(starts, len(starts), self.id, "batches") if len(images) > _PROGRESS_FROM else starts
        features, logits = [], []
        with torch.inference_mode():
            for start in shown:
                batch = images[start : start + batch_size]
                if masks is not None:
                    batch = batch * masks[start : start + batch_size, :, :, None].astype(np.uint8)
                batch = torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).to(self.device)
                for into, values in zip((features, logits), self.forward(batch), strict=True):
                    into.append(values.double().cpu().numpy())
        return np.concatenate(features), np.concatenate(logits)


class InceptionNetwork(FeatureNetwork):
    """The TensorFlow graph `inception-2015-12-05` in pytorch-fid's port: 2048 features, 1008 logits.

    Images are scaled bilinearly to 299 x 299 and to [-1, 1], as pytorch-fid does. The logits are pool3 W^T *without* the bias, as
    in the peers' Inception Score (docs/decisions.md, D35). Convolutions run in full float32 on a GPU too.

    weights_path: the file that `potgan.common.weights.weight_file("inception-2015-12-05")` names. It is read and not fetched.
    Raises UserError if the file does not hold the weights of this network, or if pytorch-fid is not installed.
    """

    id = "inception-2015-12-05"
    dimension = 2048

    def __init__(self, weights_path: Path | str, device: torch.device | str = "cpu") -> None:
        path = Path(weights_path)
        self.device = torch.device(device)
        network = _inception_2015()
        try:
            self.weights_sha256 = sha256_of(path)
            network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except FileNotFoundError:
            raise UserError(f"{path}: no such weight file; potgan.common.weights says where to get it") from None
        except Exception as error:  # torch.load raises many kinds of exceptions for a file that is no state dict
            reason = " ".join(str(error).split())[:100]
            raise UserError(f"{path}: does not hold the weights of {self.id} ({reason}); fetch the file anew") from None
        self._fully_connected = network.fc.weight.detach().to(self.device)
        network.fc = torch.nn.Identity()
        for module in network.modules():
            # Each batch norm is folded into the convolution before it.
            if isinstance(getattr(module, "bn", None), torch.nn.BatchNorm2d):
                module.conv = torch.nn.utils.fusion.fuse_conv_bn_eval(module.conv.eval(), module.bn.eval())
                module.bn = torch.nn.Identity()
        # Together with this, channels_last makes the network fast on a CPU (benchmarks/speed/inception.py).
        self._network = network.eval().requires_grad_(False).to(self.device, memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        images = functional.interpolate(images.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            features = self._network((2 * images - 1).contiguous(memory_format=torch.channels_last))
        return features, features @ self._fully_connected.T


def _inception_2015() -> torch.nn.Module:
    """Build pytorch-fid's `fid_inception_v3` without its download.

    It is torchvision's Inception with the pooling of TensorFlow.
    """
    try:
        from pytorch_fid import inception as blocks
        from torchvision.models import inception_v3
    except ImportError as error:
        raise UserError(f"the Inception network needs the package {error.name}; install requirements.lock") from None
    network = inception_v3(weights=None, num_classes=1008, aux_logits=False, init_weights=False)
    network.Mixed_5b = blocks.FIDInceptionA(192, pool_features=32)
    network.Mixed_5c = blocks.FIDInceptionA(256, pool_features=64)
    network.Mixed_5d = blocks.FIDInceptionA(288, pool_features=64)
    network.Mixed_6b = blocks.FIDInceptionC(768, channels_7x7=128)
    network.Mixed_6c = blocks.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6d = blocks.FIDInceptionC(768, channels_7x7=160)
    network.Mixed_6e = blocks.FIDInceptionC(768, channels_7x7=192)
    network.Mixed_7b = blocks.FIDInceptionE_1(1280)
    network.Mixed_7c = blocks.FIDInceptionE_2(2048)
    return network


# ---------------------------------------------------------------------------------------------------------------------
# Both scores of a set of pairs


def kernel_inception_distance(
    features_a: np.ndarray, features_b: np.ndarray, subsets: int = 100, subset_size: int = 1000, seed: int = 2020
) -> tuple[float, float, float]:
    """Return KID as (value, low, high): the unbiased squared MMD under the kernel (x y / D + 1)^3, and a 95 % interval.

    value: the mean over `subsets` pairs of random subsets. A subset has `subset_size` images, or all images if there are fewer. The
    subsets are those of torch-fidelity for the same seed.

    low, high: the percentile bootstrap of the estimate from all images, with 1,000 resamples of each side. An image is never
    compared with itself. Quantiles over the subsets would not do, because they shrink to a point if a subset is the whole set.

    Unlike FID, KID has no bias by the number of images, and it may be a little below 0 for equal distributions. This holds for
    independent images, and targets that belong to several pairs are not quite independent. 1,024 rows of a kernel matrix are in
    memory at a time.

    Raises UserError if a side has fewer than 2 images. Source: Binkowski et al. 2018, Eq. 4; torch-fidelity's metric_kid.
    """
    n, m = len(features_a), len(features_b)
    size = min(subset_size, n, m)
    if size < 2:
        raise UserError(f"KID: the sets have {n} and {m} images, and each needs at least 2")
    random = np.random.RandomState(seed)  # torch-fidelity uses this generator, so the subsets are the same
    chosen_a, chosen_b = np.zeros((n, subsets)), np.zeros((m, subsets))
    for i in range(subsets):
        chosen_a[random.choice(n, size, replace=False), i] = 1
        chosen_b[random.choice(m, size, replace=False), i] = 1
    generator = np.random.default_rng(seed)
    resampled_a, resampled_b = (
        generator.multinomial(count, np.full(count, 1 / count), size=_RESAMPLES).T.astype(np.float64)
        for count in (n, m)
    )
    estimates = _kernel_estimates(
        np.asarray(features_a, np.float64),
        np.asarray(features_b, np.float64),
        np.hstack([chosen_a, resampled_a]),
        np.hstack([chosen_b, resampled_b]),
    )
    # A resample of two or three images may consist of one image only. It then has no estimate.
    low, high = np.nanquantile(estimates[subsets:], (0.025, 0.975))
    return float(estimates[:subsets].mean()), float(low), float(high)


def _kernel_estimates(a: np.ndarray, b: np.ndarray, weights_a: np.ndarray, weights_b: np.ndarray) -> np.ndarray:
    """Return the unbiased squared MMDs (R,) of R pairs of samples.

    weights_a (N, R) and weights_b (M, R) say how often an image is in each sample.
    """

    def forms(x: np.ndarray, y: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Return the sums (R,) over i and j of left_i kernel(x_i, y_j) right_j."""
        x, y, left, right = (torch.from_numpy(values) for values in (x, y, left, right))
        total = torch.zeros(left.shape[1], dtype=torch.float64)
        for start in range(0, len(x), _KERNEL_ROWS):
            rows = slice(start, start + _KERNEL_ROWS)
            kernel = (x[rows] @ y.T).div_(x.shape[1]).add_(1).pow_(3)
            total += (left[rows] * (kernel @ right)).sum(dim=0)
        return total.numpy()

    def within(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
        own = ((x * x).sum(axis=1) / x.shape[1] + 1) ** 3
        of_others = forms(x, x, weights, weights) - own @ weights**2
        with np.errstate(invalid="ignore"):
            return of_others / (weights.sum(axis=0) ** 2 - (weights**2).sum(axis=0))

    between = forms(a, b, weights_a, weights_b) / (weights_a.sum(axis=0) * weights_b.sum(axis=0))
    return within(a, weights_a) + within(b, weights_b) - 2 * between


def cached_features(
    network: FeatureNetwork, images: np.ndarray, masks: np.ndarray | None, cache: Path | None
) -> np.ndarray:
    """Return the features (N, D) float64 of images, from `cache` if they are there.

    The key of an entry is a SHA-256 over the pixels, the masks, the weights and `_FEATURES_VERSION`. So a changed image, another
    order or other weights never find an old entry. A damaged entry is measured anew. If `cache` is None, there is no cache.
    """
    if cache is None:
        return network(images, masks=masks)[0]
    digest = hashlib.sha256(f"{_FEATURES_VERSION} {network.id} {network.weights_sha256} {images.shape}".encode())
    digest.update(np.ascontiguousarray(images))
    if masks is not None:
        digest.update(b"masks" + np.packbits(masks.astype(bool)).tobytes())
    path = cache / f"{digest.hexdigest()[:32]}.npy"
    try:
        features = np.load(path)
        if features.shape == (len(images), network.dimension) and np.isfinite(features).all():
            return features
    except (OSError, ValueError, EOFError):
        pass
    features = network(images, masks=masks)[0]
    buffer = io.BytesIO()
    np.save(buffer, features)
    write_bytes(path, buffer.getvalue())
    return features


def left_out(count: int, of: int, why: str = "their masks are empty") -> str:
    """The warning of a masked metric that leaves out pairs."""
    return f"{count:,} of {of:,} pairs are left out, because {why}"


def measure_distribution(
    generated: np.ndarray,
    targets: np.ndarray,
    masks: np.ndarray | None,
    network: FeatureNetwork,
    protocol: Protocol,
    train_images: Iterator[np.ndarray] | None = None,
    cache: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Measure IS, FID and KID of generated images, and mask-IS and mask-FID if there are masks.

    generated, targets: (N, H, W, 3) uint8 RGB, in the order of the pair list. The splits of IS follow this order, and a target
    counts as often as it stands in the list.
    masks: (N, H, W) of 0 and 1. The masked metrics multiply both the generated images and the targets by them. Pairs with an empty
    mask are left out. Where fewer are left than the splits of IS, or than two, nothing masked is measured.
    train_images: parts (n, H, W, 3) of all training images, for protocols that compare with these. Training images have no masks
    here, so mask-FID is then not measured.
    cache: a folder in which the features of targets are kept under a content hash, since every row of a table is measured
    against the same targets.
    Each set goes through the network once.

    Returns metric -> {"value", "protocol" (the id of the metric), "n" (number of generated images), "spread" (IS: standard
    deviation over the splits), "interval" (KID), "n_real" (number of real images, if it differs), "warning", "reason" (if the
    value is None)}.

    Raises UserError if N is less than 2, less than the number of splits, or less than the protocol demands for FID. Raises
    ValueError if `network` is not the one that `protocol` names.
    """
    if network.id != protocol.feature_network:
        raise ValueError(f"protocol {protocol.id} measures through {protocol.feature_network}, not {network.id}")
    if generated.shape != targets.shape:
        raise ValueError(f"generated images of shape {generated.shape}, targets of shape {targets.shape}")
    count = len(generated)
    if count < protocol.minimum_n:
        raise UserError(
            f"FID: protocol {protocol.id} demands at least {protocol.minimum_n:,} images for {network.dimension:,} features, "
            f"and there are {count:,}; use more test pairs, or another protocol (potgan score: --as-they-are)"
        )
    against_train = protocol.fid_reference == "train"
    results: dict[str, dict[str, Any]] = {}
    for prefix, mask in (("", None), ("mask_", masks)):
        if prefix and masks is None:
            continue
        images, wanted = generated, targets
        if mask is not None and not (drawn := mask.any(axis=(1, 2))).all():
            images, wanted, mask = generated[drawn], targets[drawn], mask[drawn]
        n = len(images)
        if prefix and n < max(protocol.inception_splits, protocol.minimum_n, 2):
            reason = f"only {n:,} of {count:,} masks have a pixel"
            results |= {name: {"value": None, "n": n, "reason": reason} for name in ("mask_is", "mask_fid")}
            continue
        warnings = [left_out(count - n, count)] if n < count else []
        generated_features, logits = network(images, masks=mask)
        score, spread = inception_score(logits, protocol.inception_splits)
        results[f"{prefix}is"] = {"value": score, "n": n, "spread": spread} | _warned(warnings)
        if against_train and (prefix or train_images is None):
            reason = "this protocol compares with all training images, "
            reason += "which have no masks here" if prefix else "which were not given"
            names = [f"{prefix}fid"] + ([] if prefix else ["kid"])
            results |= {name: {"value": None, "n": n, "reason": reason} for name in names}
            continue
        if against_train:
            real = np.concatenate([network(part)[0] for part in train_images])
        else:
            real = cached_features(network, wanted, mask, cache)
        warnings += filter(None, [check_sample_size(n, network.dimension)])
        results[f"{prefix}fid"] = {"value": frechet_distance(generated_features, real), "n": n} | _warned(warnings)
        if not prefix:
            mean, low, high = kernel_inception_distance(generated_features, real)
            results["kid"] = {"value": mean, "n": n, "interval": [low, high]}
        if len(real) != n:
            results[f"{prefix}fid"]["n_real"] = len(real)
    return {metric: entry | {"protocol": protocol.metric_id(metric)} for metric, entry in results.items()}


def _warned(warnings: list[str]) -> dict[str, str]:
    """The warnings of a metric as a part of its entry, which has none without them."""
    return {"warning": "; ".join(warnings)} if warnings else {}
