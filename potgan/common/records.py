"""JSON files of results as dataclasses: each kind is read by one function, and says which version of its format it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Self

from potgan.common.errors import UserError
from potgan.common.files import read_json, write_json
from potgan.common.typed import build


class JsonRecord:
    """Base of the dataclass of one kind of file.

    VERSION: of the format; raised whenever what a key means changes. REMEDY: what to do about a file that cannot be read.
    """

    VERSION: ClassVar[int] = 1
    REMEDY: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file's content. A file without a version is of version 1, which was written before versions were.

        Raises UserError, in one line, for a file that is missing, is no JSON, is of another version, or lacks a key.
        """
        tree = read_json(path, cls.REMEDY)
        if not isinstance(tree, dict):
            raise UserError(f"{path}: is no mapping; {cls.REMEDY}")
        version = tree.pop("version", 1)
        if version != cls.VERSION:
            raise UserError(
                f"{path}: is version {version} of its format, and this program reads {cls.VERSION}; {cls.REMEDY}"
            )
        tree.pop("decided_by", None)  # of the pipeline's records, which judge a file by themselves
        try:
            record = build(cls, tree, str(path))
        except UserError as error:
            raise UserError(f"{error}; {cls.REMEDY}") from None
        if record.lacks():
            raise UserError(f"{path}: has no {record.lacks()}; {cls.REMEDY}")
        return record

    def lacks(self) -> str | None:
        """What the record cannot be used without and does not have, or None."""
        return None

    def tree(self) -> dict[str, object]:
        """The content as it is written: what has its default is left out."""
        return _tree(self)

    def write(self, path: Path) -> None:
        write_json(path, {"version": self.VERSION} | self.tree())


def _tree(value: object) -> object:
    if dataclasses.is_dataclass(value):
        fields = [f for f in dataclasses.fields(value) if not f.metadata.get("meaning")]
        if not fields:  # settings are written whole
            return dataclasses.asdict(value)
        present = {f.name: getattr(value, f.name) for f in fields}
        return {f.name: _tree(present[f.name]) for f in fields if _differs(f, present[f.name])}
    if isinstance(value, dict):
        return {key: _tree(inner) for key, inner in value.items()}
    if isinstance(value, tuple):
        return [_tree(inner) for inner in value]
    return value


def _differs(field: dataclasses.Field, value: object) -> bool:
    if field.default_factory is not dataclasses.MISSING:
        return value != field.default_factory()
    return field.default is dataclasses.MISSING or value != field.default
