"""What a verb of the command line is: its name, its options and the function that it calls."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from potgan.common.paths import at_home
from potgan.settings.layout import Layout
from potgan.settings.reading import load
from potgan.settings.schema import Benchmark

#: What a verb calls with its parsed arguments. It returns the exit code, or None for 0.
Call = Callable[[argparse.Namespace], int | None]


@dataclass(frozen=True)
class Option:
    """One option or positional argument, as `ArgumentParser.add_argument` takes it."""

    flags: tuple[str, ...]
    settings: dict[str, object]


@dataclass(frozen=True)
class Verb:
    """One verb. description: one line, which `potgan --help` and `potgan VERB --help` both show."""

    name: str
    description: str
    options: tuple[Option, ...]
    call: Call


def option(*flags: str, **settings: object) -> Option:
    """An option with the arguments of `ArgumentParser.add_argument`. A path may begin with `~`."""
    if settings.get("type") is Path:
        settings["type"] = lambda text: Path(at_home(text))
    return Option(flags, settings)


def verb(name: str, description: str, *options: Option) -> Callable[[Call], Verb]:
    """Decorator: the function is what this verb calls. Its options stand beside it."""
    return lambda call: Verb(name, description, options, call)


CONFIG = option("--config", type=Path, nargs="+", default=[Path("config/config.yaml")], metavar="FILE",
                help="the configuration, and files that are laid over it; default: config/config.yaml")  # fmt: skip
ROOT = option(
    "--root", type=Path, default=Path(), help="the folder of results/ and reports/; default: the current folder"
)
DATASET = option("--dataset", required=True, help="a data set of the configuration")
MODEL = option("--model", required=True, help="a model of the configuration")
METHOD = option(
    "--method",
    required=True,
    help="a model, <main model>-first-checkpoint or -<intervention>, copy-source, mean-image, real-data or an external method",
)
PERSON = option(
    "--person",
    default="score",
    metavar="score|largest|NUMBER",
    help="which of several people in an image: that of the highest score, the largest one, or their number in the file; "
    "default: %(default)s",
)
SEED = option("--seed", type=int, default=0, help="default: %(default)s")


def configured(arguments: argparse.Namespace) -> tuple[Benchmark, Layout]:
    """The benchmark that --config names, and where its results lie under --root."""
    benchmark = load(arguments.config)
    return benchmark, Layout(benchmark.benchmark, arguments.root)


def options_of(arguments: argparse.Namespace) -> dict[str, object]:
    """The options of a verb by name, for a function whose parameters have the same names."""
    return {name: value for name, value in vars(arguments).items() if name not in ("verb", "call")}
