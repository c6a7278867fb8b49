"""The feature network of the protocol `potgan-synthetic`: a small classifier that is trained here on synthetic people.

It takes the place of Inception if the weights of Inception cannot be had. It recognises the main colours of the upper and of the
lower garment of rendered people. One class is one combination of two colours, and the Inception Score can reach the number of
classes. Its people are drawn from a seed of their own, so it has seen no person and no camera of the benchmark.

Scores through this network can only be compared with each other, within one table. They are not scores of Inception.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from potgan.common.errors import UserError
from potgan.common.files import read_json, write_bytes, write_json
from potgan.common.progress import progress, say
from potgan.common.typed import build
from potgan.data.pose_rendering import metric_mask
from potgan.data.synthetic import people
from potgan.data.synthetic.clothes import LOWER_COLOURS, UPPER_COLOURS
from potgan.measure.inception import FeatureNetwork
from potgan.settings.schema import FeatureNetworkSettings, SyntheticSettings

_CHANNELS = (16, 32, 64)  # channels of all blocks but the last, which has as many as there are features


class _Classifier(nn.Module):
    """Four blocks that halve the resolution, a mean over the picture (the features), and one linear layer per garment.

    The logit of a combination is the sum of the logits of its upper colour and of its lower colour, since the two colours are drawn
    independently. So each colour is learnt from all people who wear it, and not only from the four people who wear one
    combination.
    """

    def __init__(self, feature_dimension: int, upper_colours: int, lower_colours: int) -> None:
        super().__init__()
        widths = (3, *_CHANNELS, feature_dimension)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
                for before, after in itertools.pairwise(widths)
            )
        )
        self.upper = nn.Linear(feature_dimension, upper_colours)
        self.lower = nn.Linear(feature_dimension, lower_colours)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (B, D) and logits (B, upper * lower) of images (B, 3, H, W) in [-1, 1]."""
        features = self.blocks(images).mean(dim=(2, 3))
        logits = self.upper(features)[:, :, None] + self.lower(features)[:, None, :]
        return features, logits.flatten(1)


class SyntheticNetwork(FeatureNetwork):
    """A trained network on the CPU.

    OpenCV scales images of any size to the size of the network, with INTER_AREA if neither side grows and else with INTER_LINEAR.
    """

    id = "synthetic-classifier"
    device = torch.device("cpu")

    def __init__(self, classifier: _Classifier, settings: FeatureNetworkSettings, weights_sha256: str) -> None:
        self._classifier = classifier.eval().requires_grad_(False)
        self._size = (settings.height, settings.width)
        self.dimension = settings.feature_dimension
        self.weights_sha256 = weights_sha256

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        height, width = self._size
        if images.shape[2:] != (height, width):
            smaller = images.shape[2] >= height and images.shape[3] >= width
            method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
            pictures = images.permute(0, 2, 3, 1).numpy()
            scaled = np.stack([cv2.resize(picture, (width, height), interpolation=method) for picture in pictures])
            images = torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()
        return self._classifier(_normalised(images))


# ---------------------------------------------------------------------------------------------------------------------
# Training


def train_feature_network(settings: FeatureNetworkSettings, out: Path) -> None:
    """Render people, train the classifier and write `network.pt` (a state dict) and `network.json` into the folder `out`.

    network.json holds the settings, the accuracy on people that the network was not trained on, the accuracy that guessing the
    commonest class would give, the SHA-256 of the weights (of the bytes of the tensors, not of the file) and the versions. It is
    written last, so a folder that has it is complete.

    Equal settings give equal weights on one machine. The random state and the thread count of the caller are left as they were.
    Raises UserError if the folder cannot be written.
    """
    out = Path(out)
    (out / "network.json").unlink(missing_ok=True)
    images, masks, labels = _people(settings)
    trained_on = settings.identities * settings.images_per_identity
    upper_colours, lower_colours = len(UPPER_COLOURS), len(LOWER_COLOURS)
    with _repeatable(settings):
        classifier = _Classifier(settings.feature_dimension, upper_colours, lower_colours)
        _train(classifier, images[:trained_on], masks[:trained_on], labels[:trained_on], settings)
        held_out = labels[trained_on:]
        accuracy = _accuracy(classifier, images[trained_on:], held_out, lower_colours)
        masked = (images * masks)[trained_on:]
        accuracy |= {f"masked {k}": v for k, v in _accuracy(classifier, masked, held_out, lower_colours).items()}

    content = io.BytesIO()  # given a path, torch.save would write its name into the file
    torch.save(classifier.state_dict(), content)
    write_bytes(out / "network.pt", content.getvalue())
    write_json(
        out / "network.json",
        {
            "id": SyntheticNetwork.id,
            "settings": dataclasses.asdict(settings),
            "upper_colours": list(UPPER_COLOURS),
            "lower_colours": list(LOWER_COLOURS),
            "class": "upper * number of lower colours + lower",
            "held_out_images": len(held_out),
            "held_out_accuracy": accuracy,
            "commonest_class": {
                "upper": _commonest(held_out // lower_colours),
                "lower": _commonest(held_out % lower_colours),
                "joint": _commonest(held_out),
            },
            "weights_sha256": _tensors_sha256(classifier.state_dict()),
            "versions": {"torch": torch.__version__, "numpy": np.__version__, "opencv": cv2.__version__},
        },
    )
    shares = ", ".join(f"{name} {share:.1%}" for name, share in accuracy.items())
    say(f"feature network: accuracy on {len(held_out)} images of people it has not seen: {shares}")


def _people(settings: FeatureNetworkSettings) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return images (N, 3, H, W) uint8, pose masks (N, 1, H, W) uint8 and classes (N,), sorted by person.

    The last `held_out_identities` people are those that are held out.
    """
    appearance = SyntheticSettings(
        train_identities=settings.identities,
        test_identities=settings.held_out_identities,
        images_per_identity=settings.images_per_identity,
        height=settings.height,
        width=settings.width,
        seed=settings.seed,
    )
    persons = range(1, settings.identities + settings.held_out_identities + 1)
    images, masks, labels = [], [], []
    for person in progress(persons, len(persons), "feature network: rendering", "people"):
        for index in range(settings.images_per_identity):
            render = people.render(appearance, person, index)
            images.append(render.image)
            masks.append(metric_mask(people.annotate(render)[0], settings.height, settings.width))
            labels.append(render.upper_colour * len(LOWER_COLOURS) + render.lower_colour)
    pictures = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pictures, torch.from_numpy(np.stack(masks))[:, None], torch.tensor(labels)


@contextmanager
def _repeatable(settings: FeatureNetworkSettings) -> Iterator[None]:
    """Give a context with the seed and the number of threads of the settings. Sums depend on the number of threads.

    Afterwards the random state and the number of threads are as they were before.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        torch.set_num_threads(settings.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _train(
    classifier: _Classifier,
    images: torch.Tensor,
    masks: torch.Tensor,
    labels: torch.Tensor,
    settings: FeatureNetworkSettings,
) -> None:
    steps_per_epoch = -(-len(images) // settings.batch_size)
    steps = settings.epochs * steps_per_epoch
    optimizer = torch.optim.Adam(classifier.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=max(steps, 2))
    classifier.train()
    for step in progress(range(steps), steps, "feature network: training", "batches"):
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(images))
        at = step % steps_per_epoch * settings.batch_size
        rows = order[at : at + settings.batch_size]
        _, logits = classifier(_augmented(images[rows], masks[rows], settings))
        loss = functional.cross_entropy(logits, labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    classifier.eval()


def _normalised(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 images into float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def _augmented(images: torch.Tensor, masks: torch.Tensor, settings: FeatureNetworkSettings) -> torch.Tensor:
    """Return a batch in [-1, 1], in which each image is masked or not, mirrored or not, and somewhat darker or brighter.

    A network that was trained without masked images would answer the same class for all of them, and mask-IS would be 1.
    """
    masked = torch.rand(len(images), 1, 1, 1) < settings.masked_share
    images = torch.where(masked, images * masks, images)
    images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    factors = 1 + settings.brightness * (2 * torch.rand(len(images), 1, 1, 1) - 1)
    return _normalised((images * factors).clamp(0, 255))


def _accuracy(
    classifier: _Classifier, images: torch.Tensor, labels: torch.Tensor, lower_colours: int
) -> dict[str, float]:
    with torch.inference_mode():
        found = torch.cat([classifier(_normalised(batch))[1].argmax(dim=1) for batch in images.split(64)])
    right = {
        "upper": found // lower_colours == labels // lower_colours,
        "lower": found % lower_colours == labels % lower_colours,
        "joint": found == labels,
    }
    return {name: round(hits.double().mean().item(), 4) for name, hits in right.items()}


def _commonest(labels: torch.Tensor) -> float:
    return round(labels.bincount().max().item() / len(labels), 4)


def _tensors_sha256(weights: dict[str, torch.Tensor]) -> str:
    """Return the SHA-256 over the name, type, shape and bytes of each tensor, sorted by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_feature_network(folder: Path) -> FeatureNetwork:
    """Return the network that `train_feature_network` wrote into `folder`.

    It gives features (N, feature_dimension), and one logit per class. Raises UserError if a file is missing or damaged, or if the
    weights are not those that network.json names.
    """
    folder = Path(folder)
    remedy = "delete the folder and train the feature network again"
    record = read_json(folder / "network.json", "train the feature network again")
    try:
        settings = build(FeatureNetworkSettings, record["settings"], "settings")
        classifier = _Classifier(settings.feature_dimension, len(record["upper_colours"]), len(record["lower_colours"]))
        expected = record["weights_sha256"]
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{folder / 'network.json'}: is not of this version ({error}); {remedy}") from None
    path = folder / "network.pt"
    try:
        classifier.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; {remedy}") from None
    except Exception as error:  # torch.load raises many kinds of exceptions for a file that is no state dict
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path}: does not hold this network's weights ({reason}); {remedy}") from None
    found = _tensors_sha256(classifier.state_dict())
    if found != expected:
        raise UserError(f"{path}: has weights {found[:12]}, and network.json names {expected[:12]}; {remedy}")
    return SyntheticNetwork(classifier, settings, found)
