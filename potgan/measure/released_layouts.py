"""How the files of released result folders are named, and which panels they have.

    plain     one image per pair: `<from>___<to>`, `<from>_2_<to>`, `<from>_to_<to>` or `<from>_<to>`; the targets lie elsewhere
    deform    Deformable GAN's test.py: strips source | target | result, `<from>_<to>.png`
    patn      PATN's util/visualizer.py and its followers: `<from>___<to>_vis.jpg` or `.png`, strips of five panels
              (source, its pose, target, its pose, result) or of three (source, target, result)
    gfla      GFLA's base_model.py, also DPTN: `<from>_2_<to>_vis.jpg`, the result alone, or strips as in PATN
    adgan     ADGAN's released images: PATN's strips of five panels and PATN's names, each panel 256 x 176
    cfld      what CFLD's authors released: a folder per method, PNG files of one size (256 x 176, 512 x 352, or Market's
              128 x 64), one image per pair, named as under `plain`
    pidm      PIDM_vs_Others: rows of ten panels of 256 x 176: target pose, source, target and the results of seven methods, one
              of which is chosen by its name (`pidm:NTED`). Named as under `plain`
    numbered  `00047.png`: the place in the pair list, from 0 or from 1; the result alone, or strips as in PATN.
              `numbered-from-0` and `numbered-from-1` say what is counted from; `numbered` leaves it to the numbers

Sizes are height x width. Under `cfld`, `pidm` and `adgan` no other size is taken. Under the other layouts the width of a file
decides how many panels it has: a panel is half as wide as high (re-ID), 176 x 256 (DeepFashion without its margins) or square
(DeepFashion with them).

Sources: docs/decisions.md, D38. The names and the single panel of GFLA come from its model/base_model.py, save_results; ADGAN's
strips from menyifang/ADGAN: models/adgan.py; `cfld` from the README of YanzuoLu/CFLD, which gives the format and the sizes but
not the names; `pidm` from the README of ankanbhunia/PIDM, which gives the order of the panels, and its issue #43. That no gap
stands between PIDM's panels, and how the files of `cfld` and `pidm` are named, is assumed (docs/scoring.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from potgan.common.errors import UserError
from potgan.settings.schema import PIDM_PANELS

#: The width of one panel divided by its height: Market-1501 and DukeMTMC, DeepFashion cropped, DeepFashion as published.
PANEL_SHAPES = (1 / 2, 176 / 256, 1)
#: What a file shows, from left to right.
SINGLE = ("result",)
THREE = ("source", "target", "result")
FIVE = ("source", "pose", "target", "pose", "result")
PIDM_ROW = ("target pose", "source", "target", *PIDM_PANELS)


@dataclass(frozen=True)
class FolderLayout:
    """How the files of a result folder are named and what they hold.

    between: the texts that may stand between the two image names. endings: the texts that may stand between the second name and
    the suffix. strips: the rows of panels that a file may have. sizes: the (height, width) that a panel may have; where none is
    given, the shapes PANEL_SHAPES are told apart. choice: the panels of which one is the result. file_format: png, or None for any.
    numbered: whether the names are numbers. first: the number of the first pair, or None if the numbers themselves must tell.
    """

    between: tuple[str, ...]
    endings: tuple[str, ...]
    strips: tuple[tuple[str, ...], ...]
    example: str
    sizes: tuple[tuple[int, int], ...] = ()
    choice: tuple[str, ...] = ()
    file_format: str | None = None
    numbered: bool = False
    first: int | None = None


_ANY_BETWEEN = ("___", "_2_", "_to_", "_")
_NUMBERED = FolderLayout((), ("", "_vis"), (SINGLE, THREE, FIVE), "00047.png", numbered=True)

LAYOUTS = {
    "plain": FolderLayout(_ANY_BETWEEN, ("", "_vis"), (SINGLE,), "<from>___<to>.png"),
    "deform": FolderLayout(("_",), ("",), (THREE,), "<from>_<to>.png"),
    "patn": FolderLayout(("___",), ("_vis",), (THREE, FIVE), "<from>___<to>_vis.jpg"),
    "gfla": FolderLayout(("_2_",), ("_vis",), (SINGLE, THREE, FIVE), "<from>_2_<to>_vis.jpg"),
    "adgan": FolderLayout(("___",), ("_vis",), (FIVE,), "<from>___<to>_vis.jpg", sizes=((256, 176),)),
    "cfld": FolderLayout(
        _ANY_BETWEEN,
        ("", "_vis"),
        (SINGLE,),
        "<from>_to_<to>.png",
        sizes=((256, 176), (512, 352), (128, 64)),
        file_format="png",
    ),
    "pidm": FolderLayout(
        _ANY_BETWEEN, ("", "_vis"), (PIDM_ROW,), "<from>___<to>.png", sizes=((256, 176),), choice=PIDM_PANELS
    ),
    "numbered": _NUMBERED,
    "numbered-from-0": replace(_NUMBERED, first=0),
    "numbered-from-1": replace(_NUMBERED, first=1),
}


def layout_of(full_name: str) -> FolderLayout:
    """Return the layout with a name. `pidm:NTED` is the layout `pidm` in which the panel NTED is the result.

    Raises UserError for an unknown layout or panel, and if a panel must be chosen and is not, or cannot be
    chosen and is.
    """
    base, _, panel = full_name.partition(":")
    if base not in LAYOUTS:
        raise UserError(f"no layout {base!r} of result folders; there are {', '.join(LAYOUTS)}")
    layout = LAYOUTS[base]
    if not layout.choice:
        if panel:
            raise UserError(
                f"layout {base}: each file holds one result, so that no panel is chosen; leave {panel!r} out"
            )
        return layout
    if panel not in layout.choice:
        given = f"there is no panel {panel!r}" if panel else "a file holds the results of several methods"
        raise UserError(f"layout {base}: {given}; choose one of the panels {', '.join(layout.choice)}")
    row = tuple("result" if name == panel else name for name in layout.strips[0])
    return replace(layout, strips=(row,), choice=())


def places_in(strip: tuple[str, ...]) -> dict[str, int]:
    """Return the places of result, source and target among the panels of a strip, of those that it has."""
    return {name: strip.index(name) for name in ("source", "target", "result") if name in strip}


def strip_of(size: tuple[int, int], layout: FolderLayout, name: str, path: str | Path) -> tuple[str, ...]:
    """Return the panels, from left to right, of a file with `size` (height, width) under the layout called `name`.

    Raises UserError for a size that no strip of the layout has.
    """
    height, width = size
    counts = _listed([len(s) for s in layout.strips])
    if layout.sizes:
        fitting = [s for s in layout.strips for high, wide in layout.sizes if size == (high, len(s) * wide)]
        expected = _listed([f"{len(s) * wide} x {high}" for s in layout.strips for high, wide in layout.sizes])
        stated = f"{counts} panel{'' if counts == '1' else 's side by side'} (layout {name}) must be {expected}"
    elif layout.strips == (SINGLE,):
        return SINGLE  # the shape does not matter here, because the targets must have the same size
    else:
        widths = [(s, round(len(s) * shape * height)) for s in layout.strips for shape in PANEL_SHAPES]
        fitting = [s for s, wide in widths if width == wide]
        expected = _listed(sorted({wide for _, wide in widths}))
        stated = f"{counts} panels of this height side by side (layout {name}) are {expected} pixels wide"
    if len(fitting) == 1:
        return fitting[0]
    raise UserError(f"{path}: is {size_text(size)}, and {stated}; check the layout")


def size_text(shape: tuple[int, ...]) -> str:
    """Return the size of an image of `shape` (height, width, ...), as the messages state it."""
    return f"{shape[1]} x {shape[0]} pixels (width x height)"


def _listed(values: list) -> str:
    """Return [1, 3, 5] as `1, 3 or 5`."""
    words = [str(value) for value in values]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
