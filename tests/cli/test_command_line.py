"""How a command ends: its exit code, its one line on standard error, and what it does when a signal stops it."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from potgan import cli
from potgan.cli.verb import option, verb
from potgan.common.errors import Interrupted, UserError

#: A program whose only verb says that it is ready and then waits for a signal.
WAITING = """
import sys, time
from potgan import __main__ as program, cli
from potgan.cli.verb import verb

@verb("wait", "wait for a signal")
def wait(arguments):
    print("ready", flush=True)
    time.sleep(60)

cli.VERBS = (wait,)
sys.argv = ["potgan", "wait"]
sys.exit(program.main())
"""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a.csv: no such file"), 2, "potgan try: error: a.csv: no such file"),
        (Interrupted("stopped at iteration 3 of 9"), 75, "potgan try: stopped at iteration 3 of 9"),
        (KeyboardInterrupt(), 130, "potgan try: stopped"),
        (PermissionError(13, "Permission denied", "a.csv"), 2, "potgan try: error: a.csv: Permission denied"),
    ],
)
def test_what_a_verb_raises_decides_the_exit_code(monkeypatch, capsys, error, code, line) -> None:
    @verb("try", "raise an error")
    def attempt(_) -> None:
        raise error

    monkeypatch.setattr(cli, "VERBS", (attempt,))
    assert cli.main(["try"]) == code
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch) -> None:
    @verb("try", "raise an error that no user can put right")
    def attempt(_) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "VERBS", (attempt,))
    with pytest.raises(ZeroDivisionError):
        cli.main(["try"])


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (2, 2)])
def test_what_a_verb_returns_is_the_exit_code(monkeypatch, result, code) -> None:
    given = []

    @verb("try", "keep the arguments", option("--count", type=int, default=4))
    def attempt(arguments) -> int | None:
        given.append(arguments.count)
        return result

    monkeypatch.setattr(cli, "VERBS", (attempt,))
    assert cli.main(["try", "--count", "7"]) == code
    assert given == [7]


def test_a_call_from_python_leaves_signal_handlers_alone(tmp_path) -> None:
    """A program that calls `main` would otherwise end without a word at its next broken pipe."""
    watched = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in watched]
    assert cli.main(["convert", str(tmp_path / "absent.csv"), str(tmp_path / "out.csv"), "--to", "own"]) == 2
    assert [signal.getsignal(number) for number in watched] == before


def test_a_reader_that_stops_early_is_no_error(repository, tmp_path) -> None:
    """`potgan plan | head`: the program ends at the broken pipe, and prints no traceback."""
    program = subprocess.Popen(
        [sys.executable, "-m", "potgan", "--help"], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    program.stdout.close()
    assert program.stderr.read() == b""
    assert program.wait(30) == -signal.SIGPIPE


def waiting(repository: Path, background: bool) -> subprocess.Popen:
    """The waiting program. In the background of a shell a program is started with SIGINT ignored."""
    handler = signal.SIG_IGN if background else signal.default_int_handler
    program = subprocess.Popen(
        [sys.executable, "-c", WAITING], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
    )  # fmt: skip
    assert program.stdout.readline() == "ready\n"
    return program


@pytest.mark.parametrize(
    ("background", "number", "code", "said"),
    [
        (False, signal.SIGINT, 130, "potgan wait: stopped\n"),
        (False, signal.SIGTERM, 143, ""),
        (True, signal.SIGTERM, 143, ""),
    ],
    ids=["Ctrl-C", "SIGTERM", "SIGTERM in the background"],
)
def test_a_signal_ends_a_command(repository, background, number, code, said) -> None:
    program = waiting(repository, background)
    program.send_signal(number)
    _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (code, said)


def test_in_the_background_a_command_ignores_ctrl_c(repository) -> None:
    program = waiting(repository, background=True)
    program.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(1)
    program.kill()
    program.communicate()


def test_paths_of_the_command_line_may_begin_with_the_home_folder(tmp_path, monkeypatch, capsys) -> None:
    """A shell leaves the `~` of `--out=~/x` as it is. A folder of this name would be made in the current one."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [f"0002_c1s1_000451_0{i}.jpg: {list(range(18))}: {list(range(18))}" for i in range(2)]
    Path("table.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    assert cli.main(["pairs", "--keypoints=table.csv", "--out=~/lists/pairs.csv"]) == 0
    assert len((tmp_path / "home" / "lists" / "pairs.csv").read_text().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "table.csv"]
    assert cli.main(["verify", "market1501", "--source=~/m.zip"]) == 2
    assert f"{tmp_path / 'home' / 'm.zip'}: missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["convert", "table.csv", "table.csv", "--to", "own"],
        ["convert", "table.csv", "other-name.csv", "--to", "coco17"],
        ["convert", "poses", "./poses/", "--to", "openpose"],
        ["pairs", "--keypoints", "table.csv", "--out", "table.csv"],
        ["verify", "market1501", "--source", "archive.zip", "--out", "archive.zip"],
        ["verify", "market1501", "--source", "archive.zip", "--names", "table.csv", "--out", "table.csv"],
    ],
)
def test_what_a_verb_reads_it_does_not_overwrite(tmp_path, monkeypatch, capsys, words) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"0002_c1s1_000451_0{i}.jpg: {list(range(18))}: {list(range(18))}" for i in range(2)]
    Path("table.csv").write_text("\n".join(["name:keypoints_y:keypoints_x", *rows]) + "\n")
    Path("other-name.csv").symlink_to("table.csv")
    Path("poses").mkdir()
    Path("poses/a_keypoints.json").write_text('{"people": []}')
    Path("archive.zip").write_bytes(b"PK\x03\x04")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert cli.main(words) == 2
    assert "is read, and would be overwritten; name another file to write" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_each_verb_stands_once_with_a_line_for_help() -> None:
    names = [one.name for one in cli.VERBS]
    assert len(set(names)) == len(names) == 26
    help_text = cli.parser().format_help()
    for one in cli.VERBS:
        assert one.name in help_text
        assert "\n" not in one.description
        assert one.description
