"""Progress of a download: metrics with img2dataset's keys, one line per shard, and W&B if an API key is set."""

from collections import Counter
from pathlib import Path
from time import monotonic

from corgi.download.stats import DOWNLOAD_REASONS
from corgi.flow.shards import ShardRow
from corgi.settings.recipe import Recipe
from corgi.tables.schema import Reason
from corgi.tracking.environment import mode_here, with_environment
from corgi.tracking.tracked_run import TrackedRun
from corgi.tracking.tracker import Tracker


class Progress:
    """Totals over the shards of this run; it is called with each shard that `make_shards` has finished."""

    def __init__(self, recipe: Recipe, folder: Path, num_committed: int) -> None:
        """Continue after the shards that were committed before.

        W&B is used if a key is set, or if the recipe or WANDB_MODE requests an offline run; metrics.jsonl is always written.
        """
        tracking = with_environment(recipe.tracking)
        if tracking.mode == "auto" and mode_here(tracking) == "offline":
            tracking = tracking.model_copy(update={"mode": "disabled"})
        config = {"settings": recipe.download.model_dump(mode="json"), "seed": recipe.seed}
        run = TrackedRun("download", folder / "download", recipe.name, tracking, config)
        self._tracker = Tracker(run, num_committed)
        self._step = num_committed
        self._started = monotonic()
        self._reasons: Counter[str] = Counter()
        self._num_rows = 0

    def __call__(self, row: ShardRow) -> None:
        """Log the totals after one more shard."""
        self._step += 1
        self._num_rows += row["rows_in"]
        self._reasons.update(row["rejected"])
        self._tracker.log(self._step, self.values())
        self._tracker.commit()

    def values(self) -> dict[str, float | None]:
        """Return img2dataset's `total/...` keys, shares of all rows so far, and the share of each reason."""
        count = max(self._num_rows, 1)
        undelivered = sum(n for reason, n in self._reasons.items() if Reason(reason) in DOWNLOAD_REASONS)
        failed = self._reasons.total()
        return {
            "total/img_per_sec": self._num_rows / max(monotonic() - self._started, 1e-9),
            "total/success": (self._num_rows - failed) / count,
            "total/failed_to_download": undelivered / count,
            "total/failed_to_resize": (failed - undelivered) / count,
            "total/count": float(self._num_rows),
            **{f"status/{reason}": n / count for reason, n in sorted(self._reasons.items())},
        }

    def finish(self) -> None:
        """Close the W&B run; the wait for it is bounded."""
        self._tracker.finish()
