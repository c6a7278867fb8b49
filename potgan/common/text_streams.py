"""Standard output and standard error where their encoding lacks a character that a table or message has.

In a terminal or a pipe that is set to ASCII, Latin-1, cp1252 or GBK, Python would stop with a UnicodeEncodeError. Files are not
concerned: they are always UTF-8.
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

#: What stands for the signs of tables and messages.
_PLAIN = {
    "–": "-",
    "—": "-",
    "−": "-",
    "±": "+-",
    "×": "x",
    "→": "->",
    "“": '"',
    "”": '"',
    "’": "'",
    "σ": "sigma",
    "…": "...",
}


def write_readably() -> None:
    """From now on, replace what the encoding of standard output and standard error lacks by plain characters."""
    codecs.register_error("potgan-plain", _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="potgan-plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """The replacement of what cannot be encoded, and where encoding goes on, as `codecs.register_error` wants it."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(plain, error.object[error.start : error.end])), error.end


def plain(character: str) -> str:
    """The ASCII characters that stand for a character, or its escape, such as `\\u738b`, where there are none."""
    decomposed = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return _PLAIN.get(character) or decomposed or character.encode("ascii", "backslashreplace").decode()
