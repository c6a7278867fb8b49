"""Which methods can be trained, and the options of each.

A method is a folder `methods/<name>/` of the package, found by its name. `method.py` in it binds `METHOD`, the subclass of
`methods.method.Method`. `options.py` binds `OPTIONS`, the dataclass of `models.<name>.options`, or None for a method that has none.
It imports no torch, so that reading a configuration takes no time. A method of one file binds `OPTIONS` in its `method.py`.

The number of iterations and the batch are those of the section `training`, as for PoT-GAN. Stages and schedules are shares of the
iterations. Beside its settings, the dataclass of a method's options may have:

    training: ClassVar[dict]       the authors' values of settings of the section `training`, such as the learning rate
    unread: ClassVar[tuple]        settings of a run, as "section.key", that this method never reads. A change of them trains
                                   nothing again, and an entry that sets one of them is refused
    reads_parsing: ClassVar[bool]  whether it reads the parsing of the source image, which only some data sets have
    problem(iterations) -> str     why its settings do not fit each other, in words; "" if they do

A setting with `follows="generator.width"` is multiplied by PoT-GAN's share of the paper's width where an entry leaves it out, and
one with `follows="training.perceptual_network"` has that value.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib

from potgan.common.errors import UserError
from potgan.common.paths import PACKAGE


@functools.cache
def method_names() -> tuple[str, ...]:
    """Return the names that `models.<name>.method` may take: PoT-GAN, and then the others in the order of the alphabet."""
    names = (path.parent.name for path in PACKAGE.glob("methods/*/method.py"))
    return tuple(sorted(names, key=lambda name: (name != "potgan", name)))


def method_place(name: str) -> str:
    """Return the module that binds the `METHOD` of a method, as a dotted name within the package.

    Raises UserError for a name that no method has.
    """
    if name not in method_names():
        raise UserError(f"no method {name!r}; there are {', '.join(method_names())}")
    return f"methods.{name}.method"


def options_place(name: str) -> str:
    """Return the module that binds the `OPTIONS` of a method, as `method_place` does."""
    place = method_place(name)
    return f"methods.{name}.options" if (PACKAGE / "methods" / name / "options.py").is_file() else place


@functools.cache
def options_class(name: str) -> type | None:
    """Return the dataclass of the options of a method, or None if it has none.

    Raises UserError for a name that no method has, and for a method that does not bind its options, or binds no dataclass.
    """
    place = options_place(name)
    found = bound(place, "OPTIONS")
    if found is not None and not dataclasses.is_dataclass(found):
        path = PACKAGE.joinpath(*place.split(".")).with_suffix(".py")
        raise UserError(f"{path}: OPTIONS is no dataclass; write @dataclass(frozen=True) above it")
    return found


def bound(module: str, name: str) -> type | None:
    """Return what a module of the package binds to `name`. Raises UserError if it binds nothing."""
    found = vars(importlib.import_module(f"potgan.{module}"))
    if name not in found:
        path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
        raise UserError(f"{path}: binds no {name}; docs/architecture.md tells how to add a method")
    return found[name]
