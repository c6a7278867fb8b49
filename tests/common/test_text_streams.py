"""Verbs in a terminal or pipe whose encoding lacks a character that they print."""

import json
import os
import subprocess
import sys

import pytest

from potgan.common.text_streams import plain

#: A verb that prints what tables and messages hold, and a name that is no text in any encoding.
SPEAKING = """
import sys
from potgan import __main__ as program, cli
from potgan.cli.verb import verb
from potgan.common.errors import UserError

@verb("speak", "say what tables say")
def speak(arguments):
    print("0.29 ± 0.01, −3 – 4 × 2 → “a” é \\udcff")
    raise UserError("bild-ü.jpg: 3 × 2")

cli.VERBS = (speak,)
sys.argv = ["potgan", "speak"]
sys.exit(program.main())
"""


def speak(encoding: str) -> tuple[int, str, str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", SPEAKING], capture_output=True, env=environment, check=False)
    return done.returncode, done.stdout.decode(encoding), done.stderr.decode(encoding)


def test_ascii_gets_plain_characters() -> None:
    code, out, err = speak("ascii")
    assert (code, out) == (2, '0.29 +- 0.01, -3 - 4 x 2 -> "a" e \\udcff\n')
    assert err == "potgan speak: error: bild-u.jpg: 3 x 2\n"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "gbk", "utf-8"])
def test_other_encodings_keep_what_they_have(encoding) -> None:
    code, out, err = speak(encoding)
    assert code == 2
    assert "Traceback" not in err
    expected = "0.29 ± 0.01, −3 – 4 × 2 → “a” é \\udcff\n"

    def kept(character: str) -> str:
        try:
            return character.encode(encoding).decode(encoding)
        except UnicodeEncodeError:
            return plain(character)

    assert out == "".join(map(kept, expected))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_comparison_and_a_verification_end_as_in_utf_8(encoding, tmp_path) -> None:
    """Real verbs: both print a table or a list and end with the same exit code everywhere."""
    images = tmp_path / "ü–×"
    images.mkdir()
    verify = ["verify", "market1501", "--source", str(images)]
    compare = ["compare", str(images), str(images)]
    for words in (verify, compare):
        ends = {}
        for name in ("utf-8", encoding):
            environment = os.environ | {"PYTHONIOENCODING": name, "PYTHONUTF8": "0"}
            command = [sys.executable, "-m", "potgan", *words]
            done = subprocess.run(command, capture_output=True, env=environment, check=False)
            assert b"Traceback" not in done.stderr, json.dumps(done.stderr.decode(name))
            ends[name] = done.returncode
        assert ends["utf-8"] == ends[encoding] == 2
