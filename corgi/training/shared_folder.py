"""Checks that a folder is shared by all workers, since all of them write into one checkpoint."""

import uuid
from pathlib import Path

from corgi.settings.errors import StorageError
from corgi.training.ranks import barrier, from_first, gathered, rank, world_size


def check_shared(folder: Path) -> None:
    """Check that every worker sees a file that rank 0 writes; a collective.

    With separate folders each node would have only a part of every checkpoint, and no restart could use it.

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
