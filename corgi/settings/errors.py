"""The errors a user can cause, one class an exit code; each message is one line."""


class CorgiError(Exception):
    """Stop the command with one line: what is wrong, what is safe, what to do next."""

    exit_code = 1


class SettingsError(CorgiError):
    """A recipe or command line is wrong; nothing was started."""

    exit_code = 2


class InputError(CorgiError):
    """Something the user handed in (a list, a picture folder, a model) cannot be used."""

    exit_code = 3


class StorageError(CorgiError):
    """A disk or a committed file is full, missing or damaged; committed work stays."""

    exit_code = 4


class ClusterError(CorgiError):
    """Ray, a worker or another run stands in the way; committed work stays."""

    exit_code = 5
