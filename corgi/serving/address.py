"""A server's address, who may connect, and how it serves: everything that is known before a model is loaded."""

import socket
from dataclasses import dataclass

from corgi.serving.gate import Rules
from corgi.serving.rate import Rate
from corgi.settings.errors import InputError, SettingsError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CONNECTIONS = 512
"""Largest number of simultaneous connections; the HTTP server answers more with 503."""
_LEAST_TOKEN_CHARS = 16


@dataclass(frozen=True)
class Serving:
    """How to serve."""

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_waiting: int = 32
    per_minute: int | None = None
    """Requests for pictures per client address and minute; None: unlimited on loopback, 30 otherwise."""
    nearest: bool = True
    """Index the run's pictures, to show the training pictures nearest to each painted one."""
    search: bool = False
    """Offer search over the run's pictures; it needs their index."""

    @property
    def is_open(self) -> bool:
        """Return whether other machines can connect."""
        return self.host not in LOOPBACK

    def url(self, port: int) -> str:
        """Return the address of the page."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{port}"


def rules_of(serving: Serving, uploads_bytes: int = Rules.max_upload_bytes) -> Rules:
    """Return the rules for requests.

    Raises:
        SettingsError: other machines can connect and no token protects the server.

    """
    if serving.is_open and len(serving.token or "") < _LEAST_TOKEN_CHARS:
        raise SettingsError(
            f"--host {serving.host} lets other machines connect; nothing was started; set CORGI_TOKEN to a secret of at least {_LEAST_TOKEN_CHARS} characters, or serve on loopback"
        )
    per_minute = (30 if serving.is_open else 0) if serving.per_minute is None else serving.per_minute
    hosts = None if serving.is_open else frozenset(LOOPBACK)
    return Rules(
        hosts=hosts, token=serving.token or None, rate=Rate(per_minute), max_upload_bytes=uploads_bytes
    )


def bound(serving: Serving) -> socket.socket:
    """Return a socket that listens at the address.

    Raises:
        InputError: the address is in use or not this machine's.

    """
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    try:
        return socket.create_server((serving.host, serving.port), family=family, backlog=128)
    except OSError as error:
        raise InputError(
            f"{serving.host}:{serving.port}: {error.strerror}; nothing was started; name another port with --port"
        ) from error
