"""The errors a user can cause, one class an exit code; each message is one line."""


class CorgiError(Exception):
    """Stop the command with one line: what is wrong, what is safe, what to do next."""

    exit_code = 1
    may_pass = False
    """Whether the same work may succeed if it is tried again as it is: no user's error, but a network's or a server's."""


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
        """Take the line; `may_pass` says that the storage failed in a way that the next try may not meet."""
        super().__init__(message)
        self.may_pass = may_pass


class ClusterError(CorgiError):
    """Ray, a worker or another run stands in the way; committed work stays."""

    exit_code = 5
