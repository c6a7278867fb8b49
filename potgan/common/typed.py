"""Dataclasses from the nested mappings that YAML and JSON give, with every type, choice and range checked."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import types
import typing

from potgan.common.errors import UserError

Built = typing.TypeVar("Built")
REQUIRED = dataclasses.MISSING


def setting(
    default: typing.Any,
    meaning: str,
    *,
    choices: tuple[str, ...] | None = None,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    multiple_of: int | None = None,
    unit: str | None = None,
    follows: str | None = None,
) -> typing.Any:
    """A field of a dataclass that `build` checks and `potgan.settings.describe` describes.

    default: REQUIRED for none; the type `dict` for an empty one of its own. choices and range are those of the value, or of each
    value of a list; None, where the type allows it, is always allowed. follows: of an option of a compared method, the setting of
    the benchmark that it follows where it is left out (`settings.schema.options_beside`).
    """
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "below": below, "multiple_of": multiple_of}
    limits = {name: limit for name, limit in limits.items() if limit is not None}
    metadata = {"meaning": meaning, "choices": choices, "limits": limits, "unit": unit, "follows": follows}
    if default is dict:
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def range_text(limits: dict[str, float]) -> str:
    """The limits of a setting in words that follow "must"; "" without limits."""
    lower, upper = limits.get("at_least", limits.get("above")), limits.get("at_most", limits.get("below"))
    words = []
    if lower is not None and upper is not None:
        words.append(f"lie between {lower} and {upper}")
    elif "at_least" in limits:
        words.append(f"be at least {lower}")
    elif "above" in limits:
        words.append("be positive" if lower == 0 else f"be above {lower}")
    elif upper is not None:
        words.append(f"be {'at most' if 'at_most' in limits else 'below'} {upper}")
    if "multiple_of" in limits:
        words.append(f"be a multiple of {limits['multiple_of']}")
    return " and ".join(words)


def _check(field: dataclasses.Field, value: object, where: str) -> None:
    """Raise UserError where a value, or one of a list of values, is none of the field's choices or outside its range."""
    choices, limits = field.metadata.get("choices"), field.metadata.get("limits", {})
    for one in value if isinstance(value, tuple) else (value,):
        if one is None:
            continue
        if isinstance(one, float) and not math.isfinite(one) and field.metadata.get("meaning"):
            raise UserError(f"{where} must be a finite number, and is {one}")
        if choices is not None and one not in choices:
            raise UserError(f"{where} must be one of {', '.join(choices)}, and is {one!r}")
        allowed = {
            "at_least": lambda limit, v: v >= limit,
            "above": lambda limit, v: v > limit,
            "at_most": lambda limit, v: v <= limit,
            "below": lambda limit, v: v < limit,
            "multiple_of": lambda limit, v: v % limit == 0,
        }
        if not all(allowed[name](limit, one) for name, limit in limits.items()):
            raise UserError(f"{where} must {range_text(limits)}, and is {one}")


def flattened(tree: dict[str, typing.Any], prefix: str = "") -> dict[str, typing.Any]:
    """Nested dictionaries as one, with dotted keys."""
    flat: dict[str, typing.Any] = {}
    for key, value in tree.items():
        flat |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def merge(base: dict, override: dict, where: str) -> dict:
    """`base` with the values of `override`, also in nested mappings. where: the place of `override`, for messages.

    Raises UserError for a key that `base` does not have.
    """
    if not isinstance(override, dict):
        raise UserError(f"{where}: must be a mapping, and is {override!r}")
    merged = dict(base)
    for key, value in override.items():
        if key not in base:
            raise UserError(unknown_key(key, base, where))
        merged[key] = merge(base[key], value, f"{where}.{key}") if isinstance(base[key], dict) else value
    return merged


def unknown_key(key: str, known: typing.Iterable[str], where: str) -> str:
    """The message about a key that is not known, with the known key that is most like it."""
    known = list(known)
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
    return f"{where}: unknown key {key!r}; {hint}"


def build(cls: type[Built], tree: object, where: str, root: bool = False) -> Built:
    """An instance of dataclass `cls` from nested mappings, with every type, choice and range checked.

    where: the place of `tree`, for messages. root: whether that place is a file, and `tree` all that it holds.

    Raises UserError with the whole path of the key for an unknown key, a missing one, or a value that is not allowed.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{where}: must be a mapping, and is {tree!r}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in tree:
        if key not in fields:
            raise UserError(unknown_key(key, fields, where))
    values = {}
    for name, spec in fields.items():
        if name in tree:
            at = f"{where}: {name}" if root else f"{where}.{name}"
            values[name] = _convert(hints[name], tree[name], at)
            _check(spec, values[name], at)
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            raise UserError(f"{where}: key {name!r} is missing")
    return cls(**values)


def _may_be_empty(kind: typing.Any) -> bool:
    return kind is typing.Any or typing.get_origin(kind) is dict or dataclasses.is_dataclass(kind)


def _convert(kind: typing.Any, value: object, where: str) -> object:
    """The value as an instance of `kind`, a type or an annotation such as `dict[str, int]`, where that loses nothing."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is typing.Any or kind is object:
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(arguments[0], value, where)
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else build(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: must be a mapping, and is {value!r}")
        # An entry without a value in YAML (`potgan:`) means that it has no settings of its own.
        return {
            str(k): _convert(arguments[1], {} if v is None and _may_be_empty(arguments[1]) else v, f"{where}.{k}")
            for k, v in value.items()
        }
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}: must be a list, and is {value!r}")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise UserError(f"{where}: must have {len(arguments)} values, and has {len(value)}")
        item = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_convert(t, v, f"{where}[{i}]") for i, (t, v) in enumerate(zip(item, value, strict=True)))
    if kind is str and value is False:
        return "off"  # YAML 1.1 reads the word off without quotes as false
    if kind in (float, int) and isinstance(value, str):
        # YAML 1.1 reads 1e-3 as a string. `snakemake --config seeds=[0,1]` reads every item of a list as a string.
        with contextlib.suppress(ValueError):
            return kind(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{where}: must be of type {kind.__name__}, and is {value!r}")
    return value
