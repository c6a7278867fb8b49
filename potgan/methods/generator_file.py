"""A trained generator as one file.

A training writes such a file at each kept checkpoint. `potgan export` writes it with its scores, and `load_generator` reads it.

The file is a dictionary of plain tensors, numbers and JSON strings, saved with `torch.save` and read with `weights_only=True`.
So opening a file from somebody else runs no code. A machine needs torch to read it, and no other package.

    method                      the name of the method (a file without it holds PoT-GAN)
    generator_settings, masks   JSON: the settings of the network, and how its masks and heat maps are drawn
    image_size                  [height, width] in pixels
    training_fingerprint        the fingerprint of the settings that it was trained with
    iteration, state            the iteration of the training, and the weights
    run                         JSON: dataset, kind, label, model (null where not known), seed
    data                        JSON: the hashes of the images, key points and pair lists that it was trained on
    scores                      JSON: what `potgan evaluate` measured of its images; null until `potgan export`
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
from potgan.methods.method import GeneratorSettings, Method, PoseGenerator
from potgan.methods.registry import method_class
from potgan.settings.methods import method_names
from potgan.settings.schema import MaskSettings, RunSettings

#: The keys that a file must have, and their types. `scores` may be absent or null, and so is not listed.
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
    """A generator in eval mode, with everything that is needed to use it and to tell where it comes from.

    image_size: (height, width) in pixels. data_hashes: the hashes of the data that it was trained on. run: dataset, kind, label,
    model and seed; an entry is None if it is not known. scores: protocol, n_pairs, metrics and generator_sha256, or None if the
    file has no scores.
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
    """Write the weights of a generator, with everything that is needed to build it again.

    run: what is known of it beyond the settings (kind, label, model). scores: as in TrainedGenerator.
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
    """Load a file that `save_generator` wrote; the generator is put on `device`.

    settings: the generator settings of a configuration. Without them the settings in the file are used. The two may differ only
    in what does not decide the weights, which is PoT-GAN's guided filter if it is no part of training.

    Raises UserError for any other difference, and lists it. Raises UserError, too, for a file that is missing, damaged or of
    another kind (a text, the state of a training, the weights of another program), and for weights that do not fit the settings.
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
        # The first line of the error says only "Error(s) in loading". The last line says what is wrong.
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
            # torch warns about a pickle that torch did not write. Such a file is refused below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; run `potgan train` first") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a folder; name a file, such as `potgan export` makes of a run") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); check the path and its rights") from None
    except Exception:  # a foreign or damaged file can make the reader raise any exception
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
    if name not in method_names():
        raise UserError(
            f"{path}: is of the method {name!r}, which this version does not have; it has {', '.join(method_names())}"
        )
    return method_class(name)


def _refuse_others(method: type[Method], stored: GeneratorSettings, wanted: GeneratorSettings, path: Path) -> None:
    """Raise UserError if weights that were made with `stored` cannot be used with `wanted`."""
    if not isinstance(wanted, method.settings_class):
        raise UserError(f"{path}: is of another method than the configuration's model; train it again")
    differing = [
        f"{k}: {there} in the file, {here} wanted" for k, (there, here) in method.differing(stored, wanted).items()
    ]
    if differing:
        raise UserError(f"{path}: was trained with other settings ({'; '.join(differing)}); train it again")
