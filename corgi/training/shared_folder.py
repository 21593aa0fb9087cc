"""Checks that a folder is one and the same for every worker: checkpoints are written by all of them into one place."""

import uuid
from pathlib import Path

from corgi.settings.errors import StorageError
from corgi.training.ranks import barrier, from_first, gathered, rank, world_size


def check_shared(folder: Path) -> None:
    """Let rank 0 write a token that every worker must find; a collective.

    On folders of their own, workers would write checkpoints of which each node has a part, and no restart could use one.

    Raises:
        StorageError: a worker does not see it.

    """
    if world_size() == 1:
        return
    token = folder / f".shared.{from_first(uuid.uuid4().hex)}"
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    barrier()
    blind = [number for number, sees in enumerate(gathered(token.exists())) if not sees]
    if rank() == 0:
        token.unlink()
    if blind:
        raise StorageError(
            f"{folder} is not shared: workers {', '.join(map(str, blind[:8]))} of {world_size()} do not see what worker 0 writes there; "
            "committed work is safe; set scratch (or root) to a folder that every node mounts"
        )
