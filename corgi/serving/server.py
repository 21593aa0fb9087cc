"""The server's process: it loads a run, binds an address and runs uvicorn."""

import sys
from pathlib import Path

import uvicorn

from corgi.inference.loading import load
from corgi.serving.address import CONNECTIONS, Serving, bound, rules_of
from corgi.serving.app import make_app
from corgi.serving.gate import Rules
from corgi.serving.picture_index import PictureIndex
from corgi.serving.search import Search
from corgi.serving.studio import Studio
from corgi.serving.uploads import Uploads
from corgi.settings.errors import InputError
from corgi.tables.run import Run

_EXAMPLES, _LONGEST_EXAMPLE_CHARS = 6, 40


def studio_of(serving: Serving) -> Studio:
    """Load a run.

    Raises:
        InputError: there is no such run, or it has not finished the stages that painting needs.
        StorageError: a committed file does not match its manifest.

    """
    run = Run.open(serving.run)
    generator = load(serving.run)
    recipe = run.facts.get("recipe", {})
    index = _index_of(run, serving)
    return Studio(
        run=run.name,
        side=generator.side,
        painter=generator,
        uploads=Uploads(Rules.max_upload_bytes),
        index=index,
        search=Search.load(run, index, generator) if serving.search and index is not None else None,
        credit=str(recipe.get("plan", {}).get("credit", "")),
        examples=_captions(run),
        max_waiting=serving.max_waiting,
    )


def _index_of(run: Run, serving: Serving) -> PictureIndex | None:
    """Return the index of the run's pictures, or None. Without search a run that is too large is served without it, and a line says so."""
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
    """Return some captions as examples, evenly spaced among the sorted short captions of the run's first shard."""
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
        address = serving.url(listening.getsockname()[1])
        print(f"{Path(serving.run).name}: {address}/ (API: {address}/v1; stop it with Ctrl-C)", flush=True)
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=5,
        )
        uvicorn.Server(config).run(sockets=[listening])
