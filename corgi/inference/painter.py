"""The worker of a bulk generation: it loads a run once per actor, and paints one shard of prompts per call."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TypedDict

import pyarrow as pa

from corgi.settings.painting import FinishSettings, PaintSettings
from corgi.tables.manifest import RowCounts, ShardManifest
from corgi.tables.schema import Reason
from corgi.tables.store import ShardTask, Store

BATCH = 64
"""Number of pictures painted in one batch."""
PROMPTS = pa.schema(
    [("row", pa.int64()), ("caption", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""One row per row of the file of prompts: its number from 0, and its caption, or the reason why it cannot be painted."""


class PromptRow(TypedDict):
    """A row of PROMPTS."""

    row: int
    caption: str
    reason: str | None
    detail: str | None


PICTURES = pa.schema(
    [
        ("row", pa.int64()),
        ("number", pa.int32()),
        ("caption", pa.string()),
        ("seed", pa.int64()),
        ("image", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("similarity", pa.float32()),
    ]
)
"""One row per picture, by row of the file and number of the picture: PNG bytes, whose text chunks record what the picture was made
from, sides in px, and the CLIP cosine with the caption if it was chosen among several pictures (else null)."""
LEDGER = pa.schema(
    [("row", pa.int64()), ("status", pa.string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""One row per row of the file: kept, or rejected with a reason."""


class Painter:
    """Paints shards with one run and the requested settings."""

    def __init__(self, run: str, asked: Mapping[str, object], finish: Mapping[str, object]) -> None:
        """Load the run; the settings are JSON."""
        from corgi.inference.loading import load

        self._generator = load(run).using(PaintSettings.model_validate(asked))
        self._finish = FinishSettings.model_validate(finish)

    def make(self, task: ShardTask) -> ShardManifest:
        """Commit `pictures` and `ledger` of one shard."""
        store = Store(task.root)
        rows = store.read(store.read_shard(task.inputs["prompts"][0]), "prompts").to_pylist()
        pictures = list(self._pictures(rows, task.payload["n"], task.payload["seed"]))
        rejected = Counter(Reason(row["reason"]) for row in rows if row["reason"])
        counts = RowCounts(
            rows_in=len(rows), kept=len(rows) - sum(rejected.values()), rejected=dict(rejected)
        )
        with store.attempt(task) as attempt:
            attempt.write_table("pictures", pa.Table.from_pylist(pictures, schema=PICTURES))
            attempt.write_table("ledger", pa.Table.from_pylist(list(map(_ledger_row, rows)), schema=LEDGER))
            return attempt.commit(counts, facts={"models": self._generator.models})

    def _pictures(self, rows: Sequence[PromptRow], n: int, seed: int) -> Iterator[dict[str, object]]:
        """Yield the rows of the table of pictures; picture i of row r has the seed `seed` + r n + i."""
        asked = (
            (row["row"], number, row["caption"], seed + row["row"] * n + number)
            for row in rows
            if row["reason"] is None
            for number in range(n)
        )
        while batch := list(islice(asked, BATCH)):
            yield from self._painted(batch)

    def _painted(self, batch: Sequence[tuple[int, int, str, int]]) -> Iterator[dict[str, object]]:
        from corgi.inference.finish import finished
        from corgi.inference.png import png_bytes
        from corgi.inference.prompts import SIMILARITY

        painted = self._generator.generate_each([one[2] for one in batch], [one[3] for one in batch])
        for (row, number, caption, seed), picture in zip(batch, painted, strict=True):
            made = finished(picture, self._finish)
            cosine = made.info.get(SIMILARITY)
            yield {
                "row": row,
                "number": number,
                "caption": caption,
                "seed": seed,
                "image": png_bytes(made),
                "width": made.width,
                "height": made.height,
                "similarity": None if cosine is None else float(cosine),
            }


def _ledger_row(row: PromptRow) -> dict[str, object]:
    status = "kept" if row["reason"] is None else "rejected"
    return {"row": row["row"], "status": status, "reason": row["reason"], "detail": row["detail"]}
