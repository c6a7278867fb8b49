"""The one exception for what a user can put right."""


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do. The command line exits with 2."""


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM or Ctrl-C) and has saved its state. The command line exits with 75."""
