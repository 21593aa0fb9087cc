"""The history of one row: the lists that name it, its ledger, its captions, why it was dropped, and how to take it down."""

from dataclasses import dataclass
from typing import Any

from corgi.serving.search_bodies import ListRow, RowHistory
from corgi.tables.arrow import pc
from corgi.tables.embedded import EmbeddedShard
from corgi.tables.store import Store

_FACTS = ("url", "width", "height", "original_width", "original_height", "sha256", "mime", "group", "split")


@dataclass(frozen=True)
class Tables:
    """The tables of one shard, from which a row is read."""

    shard: EmbeddedShard

    def rows(self, stage: str, table: str, uid: str) -> list[dict[str, Any]]:
        """Return the rows of a uid in one table."""
        store = Store(self.shard.root)
        rows = store.read(store.read_shard(getattr(self.shard, stage)), table, columns=None)
        return rows.filter(pc.equal(rows["uid"], uid)).to_pylist()


def history(shard: EmbeddedShard, uid: str, run: str) -> RowHistory:
    """Return the history of a row of a shard."""
    tables = Tables(shard)
    store = Store(shard.root)
    images = store.read(store.read_shard(shard.download), "images", ["uid", *_FACTS])
    facts = images.filter(pc.equal(images["uid"], uid)).to_pylist()[0]
    selection = tables.rows("curate", "selection", uid)[0]
    return RowHistory(
        uid=uid,
        facts={name: facts[name] for name in _FACTS},
        captions=[row["caption"] for row in tables.rows("download", "captions", uid)],
        lists=[
            ListRow(source=row["source"], row=row["row"]) for row in tables.rows("download", "ledger", uid)
        ],
        keep=selection["keep"],
        reason=selection["reason"],
        take_down=f"echo {uid} > taken-down.txt && corgi run {run} --take-down taken-down.txt",
    )
