"""The server's process: a loaded run, a bound address, uvicorn."""

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from corgi.inference.loading import load
from corgi.serving.app import make_app
from corgi.serving.gate import Rules
from corgi.serving.picture_index import PictureIndex
from corgi.serving.rate import Rate
from corgi.serving.search import Search
from corgi.serving.studio import Studio
from corgi.serving.uploads import Uploads
from corgi.settings.errors import InputError, SettingsError
from corgi.tables.run import Run

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LEAST_TOKEN_CHARS = 16
_EXAMPLES, _LONGEST_EXAMPLE_CHARS = 6, 40
CONNECTIONS = 512
"""Connections at once; further ones are answered with 503 by uvicorn itself."""


@dataclass(frozen=True)
class Serving:
    """How to serve."""

    run: str
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    max_waiting: int = 32
    per_minute: int | None = None
    """Requests for pictures per address and minute; None: any number on loopback, 30 elsewhere."""
    nearest: bool = True
    """Index the run's pictures, to show the training pictures nearest to a painted one."""
    search: bool = False
    """Search over the run's pictures; it needs their index."""

    @property
    def is_open(self) -> bool:
        """Return whether other machines can connect."""
        return self.host not in LOOPBACK


def rules_of(serving: Serving, uploads_bytes: int = Rules.max_upload_bytes) -> Rules:
    """Return what the gate lets pass.

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
        InputError: the address is taken or not this machine's.

    """
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    try:
        return socket.create_server((serving.host, serving.port), family=family, backlog=128)
    except OSError as error:
        raise InputError(
            f"{serving.host}:{serving.port}: {error.strerror}; nothing was started; name another port with --port"
        ) from error


def studio_of(serving: Serving) -> Studio:
    """Load a run.

    Raises:
        InputError: there is no such run, or it has not finished what painting needs.
        StorageError: a committed file does not match its manifest.

    """
    run = Run.open(serving.run)
    generator = load(serving.run)
    recipe = run.facts.get("recipe", {})
    index = _index_of(run, serving)
    return Studio(
        run=run.name,
        side=generator.decoder.autoencoder.image_size,
        painter=generator,
        uploads=Uploads(Rules.max_upload_bytes),
        index=index,
        search=Search.load(run, index, generator) if serving.search and index is not None else None,
        credit=str(recipe.get("plan", {}).get("credit", "")),
        examples=_captions(run),
        max_waiting=serving.max_waiting,
    )


def _index_of(run: Run, serving: Serving) -> PictureIndex | None:
    """Return the index of the run's pictures; where only the nearest ones need it, a large run goes without and says so."""
    if not (serving.nearest or serving.search):
        return None
    try:
        return PictureIndex.load(run)
    except InputError as error:
        if serving.search:
            raise
        print(f"without nearest training pictures: {error}", file=sys.stderr, flush=True)
        return None


def _captions(run: Run) -> list[str]:
    """Return some captions of the run's first shard, from all over it, as examples."""
    shards = run.embedded()
    if not shards or not shards[0].download:
        return []
    texts = sorted(
        {text for text in shards[0].caption_texts().values() if len(text) <= _LONGEST_EXAMPLE_CHARS}
    )
    return texts[:: max(1, len(texts) // _EXAMPLES)][:_EXAMPLES]


def serve(serving: Serving) -> None:
    """Serve a run until the process is stopped.

    Raises:
        CorgiError: the run, the address or the token cannot be used; nothing was started.

    """
    rules = rules_of(serving)
    with bound(serving) as listening:
        app = make_app(studio_of(serving), rules)
        port = listening.getsockname()[1]
        host = f"[{serving.host}]" if ":" in serving.host else serving.host
        print(
            f"{Path(serving.run).name}: http://{host}:{port}/ (API: http://{host}:{port}/v1, Ctrl-C ends it)",
            flush=True,
        )
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listening])
