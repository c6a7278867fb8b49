"""Errors that end a command with one line on standard error, and the exit codes that they give it."""

EXIT_BAD_INPUT = 2
#: EX_TEMPFAIL of sysexits.h: the same command continues.
EXIT_INTERRUPTED = 75


class UserError(Exception):
    """Something that the user can put right. The message is one line: what is wrong, where, and what to do."""


class Interrupted(Exception):
    """A run was asked to stop by SIGTERM or Ctrl-C and has saved its state."""
