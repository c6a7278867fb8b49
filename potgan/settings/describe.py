"""Writes the tables of keys in `config/README.md` from the fields of the configuration's dataclasses.

`python -m potgan.settings.describe config/README.md` writes the tables anew between the two marks of that file.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

from potgan.common.errors import UserError
from potgan.common.files import write_text
from potgan.common.typed import range_text
from potgan.settings.methods import method_names, options_class
from potgan.settings.schema import Benchmark

BEGIN, END = "<!-- keys: begin (written by python -m potgan.settings.describe) -->", "<!-- keys: end -->"


def tables() -> str:
    """Return Markdown with one table per section. The table of the configuration itself comes first."""
    parts = [_table("The file", "", Benchmark)]
    parts += [_table(f"`{place}`", _first_sentence(cls), cls) for place, cls in _sections(Benchmark, "")]
    parts.append(_model_table())
    options = {name: cls for name in method_names() if (cls := options_class(name)) is not None}
    parts += [
        _table(f"`models.<name>.options` of `{name}`", f"{_first_sentence(cls)}{_rates(cls)}", cls)
        for name, cls in options.items()
    ]
    return "\n".join(parts)


def _model_table() -> str:
    """An entry under `models:` is no dataclass, because it holds only what differs from the sections."""
    return "\n".join(
        [
            "### `models.<name>`",
            "",
            "What differs for one model from the sections `generator`, `discriminator`, `loss_weights` (PoT-GAN only), `masks` and "
            "`training`, and:",
            "",
            "| key | type | default | allowed | meaning |",
            "|---|---|---|---|---|",
            "| `training` | section | that section, with the authors' learning rate and betas (below) | "
            "| what differs for this model |",
            f'| `method` | text | `"potgan"` | {", ".join(f"`{name}`" for name in method_names())} | the training method '
            "(docs/methods.md) |",
            "| `options` | section | the authors' |  | of a method other than PoT-GAN, as below; a width that is left out is the "
            "authors' times `generator.width` / 64 |",
            "",
        ]
    )


def insert(text: str) -> str:
    """Return the document `text` with the tables between its two marks. Raises UserError if a mark is missing."""
    if BEGIN not in text or END not in text:
        raise UserError(f"the document has no {BEGIN!r} or no {END!r}; put both where the tables belong")
    return text.split(BEGIN)[0] + f"{BEGIN}\n\n{tables()}\n{END}" + text.split(END, 1)[1]


def _rates(options: type) -> str:
    """The authors' settings of `training`, as a sentence, or "" without them."""
    found = getattr(options, "training", {})
    named = ", ".join(f"`training.{key}: {list(v) if isinstance(v, tuple) else v}`" for key, v in found.items())
    return f" Unless its entry says otherwise: {named}." if named else ""


def _sections(cls: type, place: str) -> Iterator[tuple[str, type]]:
    """Yield (key, dataclass) of every section below `cls`. Each section comes before the sections that it contains."""
    for name, kind in typing.get_type_hints(cls).items():
        inner = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else kind
        at = f"{place}{name}" + (".<name>" if inner is not kind else "")
        if dataclasses.is_dataclass(inner):
            yield at, inner
            yield from _sections(inner, f"{at}.")


def _first_sentence(cls: type) -> str:
    return (cls.__doc__ or "").split("\n\n")[0].replace("\n", " ").strip()


def _table(title: str, text: str, cls: type) -> str:
    lines = [
        f"### {title}",
        "",
        *([text, ""] if text else []),
        "| key | type | default | allowed | meaning |",
        "|---|---|---|---|---|",
    ]
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        about = field.metadata
        limits = range_text(about["limits"]).removeprefix("be ").removeprefix("lie ").replace(" and be ", ", ")
        allowed = ", ".join(f"`{choice}`" for choice in about["choices"] or ()) or limits
        meaning = about["meaning"] + (f" ({about['unit']})" if about["unit"] else "")
        cells = [
            f"`{field.name}`",
            _type(hints[field.name]),
            _default(field),
            allowed,
            meaning,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def _type(kind: typing.Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return f"{_type(arguments[0])} or null"
    if dataclasses.is_dataclass(kind) or origin is dict:
        return "section"
    if origin is tuple:
        return (
            f"list of {_type(arguments[0])}"
            if arguments[-1] is Ellipsis
            else f"{len(arguments)} x {_type(arguments[0])}"
        )
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, "any")


def _default(field: dataclasses.Field) -> str:
    if field.default is dataclasses.MISSING:
        return "none" if field.default_factory is dataclasses.MISSING else ""
    if dataclasses.is_dataclass(field.default):
        return ""
    follows = field.metadata.get("follows")
    if follows == "generator.width":
        return f"`{json.dumps(field.default)}` x `{follows}` / 64"
    return f"`{follows}`" if follows else f"`{json.dumps(field.default)}`"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        write_text(Path(name), insert(Path(name).read_text(encoding="utf-8")))
