"""The errors a user can cause, one class per exit code; each message is one line."""


class CorgiError(Exception):
    """Stop the command with one line: what is wrong, what is safe, what to do next."""

    exit_code = 1
    may_pass = False
    """Whether the same work may succeed when it is repeated unchanged, because the network or a server failed."""


class SettingsError(CorgiError):
    """A recipe or command line is wrong; nothing was started."""

    exit_code = 2


class InputError(CorgiError):
    """Something the user handed in (a list, a picture folder, a model) cannot be used."""

    exit_code = 3


class StorageError(CorgiError):
    """A disk or a committed file is full, missing or damaged; committed work stays."""

    exit_code = 4

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        """Make an error of one line; `may_pass`: the storage failed in a way that may not happen at the next attempt."""
        super().__init__(message)
        self.may_pass = may_pass


class ClusterError(CorgiError):
    """Ray, a worker or another run stands in the way; committed work stays."""

    exit_code = 5
