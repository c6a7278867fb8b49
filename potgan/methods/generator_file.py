"""A trained generator as one file: written at each kept checkpoint, exported with its scores, and loaded again to be used.

The file is a `torch.save`d dictionary of plain tensors, numbers and JSON strings, read with `weights_only=True`: opening
one that somebody sent runs no code. A machine needs torch for it and no other package.

    method                      its name (a file without it holds PoT-GAN)
    generator_settings, masks   JSON: what the network is, and how its masks and heat maps are drawn
    image_size                  [height, width] in pixels
    training_fingerprint        of the settings that it was trained with
    iteration, state            the training's iteration and the weights
    run                         JSON: dataset, kind, label, model (null where not known), seed
    data                        JSON: the hashes of images, key points and pair lists that it was trained on
    scores                      JSON: what `potgan evaluate` measured of it; null until `potgan export`
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from potgan.common.errors import UserError
from potgan.common.files import write_bytes
from potgan.common.tensors import tensors_to_bytes
from potgan.common.typed import build
from potgan.methods import METHODS
from potgan.methods.method import GeneratorSettings, Method, PoseGenerator
from potgan.methods.registry import method_class
from potgan.settings.schema import MaskSettings, RunSettings

#: Keys of a file and their types. `scores` may be absent or null.
_KEYS = {
    "generator_settings": str,
    "masks": str,
    "image_size": list,
    "training_fingerprint": str,
    "iteration": int,
    "run": str,
    "data": str,
    "state": dict,
}


@dataclass(frozen=True)
class TrainedGenerator:
    """A generator in eval mode, with all that is needed to use it and to tell where it is from.

    image_size: (height, width) in pixels. data_hashes: what it was trained on. run: dataset, kind, label, model, seed; None
    where not known. scores: protocol, n_pairs, metrics, generator_sha256, or None where the file has none.
    """

    generator: PoseGenerator
    iteration: int
    masks: MaskSettings
    image_size: tuple[int, int]
    data_hashes: dict[str, str]
    run: dict[str, Any]
    scores: dict[str, Any] | None


def save_generator(
    path: Path,
    generator: PoseGenerator,
    settings: RunSettings,
    iteration: int,
    data_hashes: dict[str, str],
    run: dict[str, Any] | None = None,
    scores: dict[str, Any] | None = None,
) -> None:
    """Write a generator's weights with all that is needed to build it again.

    run: what is known of it beyond the settings (kind, label, model); scores: as in TrainedGenerator.
    """
    known = {"dataset": settings.dataset, "kind": None, "label": None, "model": None, "seed": settings.seed}
    content = {
        "method": settings.method,
        "generator_settings": json.dumps(
            dataclasses.asdict(method_class(settings.method).generator_settings(settings))
        ),
        "masks": json.dumps(dataclasses.asdict(settings.masks)),
        "image_size": list(settings.image_size),
        "training_fingerprint": settings.training_fingerprint,
        "iteration": iteration,
        "run": json.dumps(known | (run or {})),
        "data": json.dumps(data_hashes),
        "scores": json.dumps(scores),
        "state": {name: tensor.cpu() for name, tensor in generator.state_dict().items()},
    }
    write_bytes(path, tensors_to_bytes(content))


def load_generator(
    path: str | Path, settings: GeneratorSettings | None = None, device: torch.device | str = "cpu"
) -> TrainedGenerator:
    """The generator of a file that `save_generator` wrote, on `device`.

    settings: of the generator, as a configuration has them now; without them the file's own hold. What decides no weight may
    differ (PoT-GAN's guided filter, where it is no part of training); any other difference is a UserError that lists it.
    Raises UserError, too, for a file that is
    missing, damaged, or something else (a text, a training's state, another program's weights), and weights that do not
    fit the settings.
    """
    path = Path(path)
    content = _read(path)
    method = _method(content, path)
    stored = build(method.settings_class, _json(content, "generator_settings", path), f"{path}: generator_settings")
    if settings is not None:
        _refuse_others(method, stored, settings, path)
    size = content["image_size"]
    if len(size) != 2 or not all(type(side) is int and side > 0 and side % 16 == 0 for side in size):
        raise UserError(
            f"{path}: image_size is {size}, and is a height and a width in multiples of 16; export it again"
        )
    generator = method.build_generator(settings or stored, tuple(size))
    try:
        generator.load_state_dict(content["state"])
    except (RuntimeError, TypeError, AttributeError) as error:
        # The first line says "Error(s) in loading"; the next one what.
        reason = " ".join((str(error).splitlines() or ["?"])[-1].split())[:160]
        raise UserError(f"{path}: its weights do not fit its own settings ({reason}); export it again") from None
    return TrainedGenerator(
        generator.to(device).eval().requires_grad_(False),
        content["iteration"],
        build(MaskSettings, _json(content, "masks", path), f"{path}: masks"),
        tuple(size),
        _json(content, "data", path),
        _json(content, "run", path),
        _json(content, "scores", path, optional=True),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that is not torch's; it is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; run `potgan train` first") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file, such as `potgan export` makes of a run") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except Exception:  # whatever the bytes of a foreign or damaged file make of the reader
        raise UserError(
            f"{path}: is no generator file, or is damaged; name a generator-<iteration>.pt of a training or a file of "
            "`potgan export`"
        ) from None
    if isinstance(content, dict) and "identity" in content:
        raise UserError(
            f"{path}: is the state of an unfinished training; generators are the generator-<iteration>.pt in train/ beside "
            "its folder"
        )
    if not isinstance(content, dict) or not {"state", "generator_settings"} <= content.keys():
        raise UserError(f"{path}: is torch's format, and no generator of potgan; name a file of `potgan export`")
    for key, kind in _KEYS.items():
        if type(content.get(key)) is not kind:
            what = "is of another type" if key in content else "is missing (an earlier version's file?)"
            raise UserError(f"{path}: {key!r} {what}; train or export it again")
    return content


def _json(content: dict[str, Any], key: str, path: Path, optional: bool = False) -> Any:
    try:
        tree = json.loads(content.get(key, "null"))
    except (TypeError, ValueError, RecursionError):
        raise UserError(f"{path}: {key!r} is not JSON; train or export it again") from None
    if not isinstance(tree, dict) and not (optional and tree is None):
        raise UserError(f"{path}: {key!r} is no mapping; train or export it again")
    return tree


def _method(content: dict[str, Any], path: Path) -> type[Method]:
    name = content.get("method", "potgan")
    if name not in METHODS:
        raise UserError(
            f"{path}: is of the method {name!r}, which this version does not have; it has {', '.join(METHODS)}"
        )
    return method_class(name)


def _refuse_others(method: type[Method], stored: GeneratorSettings, wanted: GeneratorSettings, path: Path) -> None:
    """UserError where weights made with `stored` cannot be used with `wanted`."""
    if not isinstance(wanted, method.settings_class):
        raise UserError(f"{path}: is of another method than the configuration's model; train it again")
    differing = [
        f"{k}: {there} in the file, {here} wanted" for k, (there, here) in method.differing(stored, wanted).items()
    ]
    if differing:
        raise UserError(f"{path}: was trained with other settings ({'; '.join(differing)}); train it again")
