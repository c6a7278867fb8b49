"""Where a data set comes from: the user's copy, the data folder, or the published sources, in this order.

`locate` looks for a copy on this machine, without a network. `acquire` fetches a copy where there is none. `why_absent` says
beforehand whether a data set can be had at all, so that the rest of a benchmark runs without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potgan.common.download import fetch, file_name_of, is_address
from potgan.common.errors import UserError
from potgan.common.progress import say
from potgan.data.sources.archives import Facts, facts_of, password_hint, password_of
from potgan.settings.schema import Dataset


@dataclass(frozen=True)
class Copy:
    """A copy of a data set on this machine. origin: "user", "data folder", or the address that it was fetched from."""

    path: Path
    origin: str


def locate(dataset: Dataset, name: str, data: Path) -> Copy | None:
    """The copy on this machine: at the path that the configuration names, or else under the first known name in the data folder.

    name: the data set's name in the configuration. data: the data folder. None where there is no copy.

    Raises UserError where the configuration names a path that does not exist. It is then most likely mistyped, so no other copy
    is looked for, and nothing is fetched.
    """
    facts = facts_of(dataset.kind)
    if dataset.source is not None and not is_address(dataset.source):
        path = Path(dataset.source)
        if not path.exists():
            raise UserError(
                f"{path}: missing; put {facts['archive']} (or its unpacked folder) there, or set "
                f"datasets.{name}.source (--source) to where it lies, or leave it out ({_where_else(facts, data)})"
            )
        return Copy(path, "user")
    if dataset.source is not None:
        file = data / _local_name(dataset.source, facts)
        return Copy(file, "data folder") if file.exists() else None
    for candidate in facts["candidates"]:
        if (data / candidate).exists():
            return Copy(data / candidate, "data folder")
    return None


def acquire(dataset: Dataset, name: str, data: Path) -> Copy:
    """A copy on this machine, which is fetched into the data folder if there is none. Raises UserError where none can be had."""
    found = locate(dataset, name, data)
    if found is not None:
        return found
    reason = why_absent(dataset, name, data)
    if reason:
        raise UserError(f"{name}: {reason}")
    facts = facts_of(dataset.kind)
    addresses = [dataset.source] if dataset.source else facts["sources"]
    # The published checksum is that of the published archive. An archive that the user names may have been packed again.
    checksum = dataset.checksum or (None if dataset.source else facts["checksum"])
    size = None if dataset.source else facts["size"]
    failures = []
    for address in addresses:
        target = data / _local_name(address, facts)
        by_hand = f"put {facts['archive']} or its unpacked folder into {data}, or name it as datasets.{name}.source (--source)"
        say(f"{name}: fetching {address}")
        try:
            fetch(address, target, checksum=checksum, size=size, by_hand=by_hand)
            return Copy(target, address)
        except UserError as error:
            failures.append(str(error))
            if len(addresses) > 1:
                say(f"{name}: {str(error).removesuffix(f'; {by_hand}')}")
    if len(failures) == 1:
        raise UserError(failures[0])
    raise UserError(f"{name}: none of {len(failures)} sources gives it (the lines above say why); {by_hand}")


def why_absent(dataset: Dataset, name: str, data: Path) -> str:
    """Why a data set cannot be had, in words; "" if it lies here or can be fetched. No network is asked.

    Raises UserError as `locate` does.
    """
    if dataset.kind == "synthetic" or locate(dataset, name, data) is not None:
        return ""
    facts = facts_of(dataset.kind)
    next_step = (
        f"put {facts['archive']} or its unpacked folder into {data}, or name it as datasets.{name}.source (--source)"
    )
    if not dataset.source and not facts["sources"]:
        return f"{facts['label']} is not here ({facts['access']}); {next_step}"
    if not dataset.source and facts.get("password_variable") and password_of(facts, data) is None:
        return f"{facts['label']} is not here, and is encrypted; {next_step}, or {password_hint(facts)}"
    return ""


def _where_else(facts: Facts, data: Path) -> str:
    """What happens where the configuration names no source, for a message."""
    fetched = "is fetched" if facts["sources"] else "stays out of the benchmark"
    return f"then it is looked for in {data}, and if absent {fetched}; {facts['label']}: {facts['page']}"


def _local_name(address: str, facts: Facts) -> str:
    """The name under which what is fetched from an address lies in the data folder."""
    name = file_name_of(address)
    return name if name and name.endswith(".zip") else facts["archive"]
