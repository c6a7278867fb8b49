"""Errors that end a command with one line on standard error, and the exit codes that they give it."""

from typing import ClassVar


class UserError(Exception):
    """Something that the user can put right. The message is one line, and the command line exits with code 2."""

    exit_code: ClassVar[int] = 2


class Interrupted(Exception):
    """A run was asked to stop by SIGTERM or Ctrl-C and has saved its state. The command line exits with code 75.

    75 is EX_TEMPFAIL of sysexits.h: the same command continues the run.
    """

    exit_code: ClassVar[int] = 75
