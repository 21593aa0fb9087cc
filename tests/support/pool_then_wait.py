"""Makes a few shards on a pool of the cluster that RAY_ADDRESS names, and then stays connected until its input ends.

`python -m tests.support.pool_then_wait FOLDER NUM_SHARDS NUM_ACTORS` prints a line when the shards are made.
"""

import sys
import time
from pathlib import Path

from corgi.flow.cluster import connect
from corgi.flow.shards import Pool, make_shards
from corgi.settings.recipe import Recipe
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.store import ShardTask, Store


class SlowShard:
    """Takes two seconds for a shard of one row."""

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit the shard."""
        time.sleep(2)
        with Store(task.root).attempt(task) as attempt:
            attempt.write_bytes("note", ".json", b"{}")
            return attempt.commit(RowCounts(rows_in=1, kept=1))


def main(folder: str, num_shards: str, num_actors: str) -> None:
    """Make the shards and wait."""
    Path(folder).mkdir()
    connect(Recipe(name="pool"))
    tasks = [ShardTask(folder, "toy", f"{n:05d}", f"{n:032x}", 1, "code", {}) for n in range(int(num_shards))]
    make_shards(SlowShard, {}, tasks, Pool(int(num_actors)), "toy")
    print("made", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
