"""Outcomes of earlier downloads by URL: if another list names the URL again, no request is sent for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from corgi.download.planned import KnownOutcomes, Outcome, blocked_hashes
from corgi.download.shard_tables import IMAGE_FIELDS
from corgi.imaging.decode import StoredImage
from corgi.planning.blocklist import HashBlocklist
from corgi.settings.errors import StorageError
from corgi.sources.lookup import readable, shards_with
from corgi.tables.arrow import is_in
from corgi.tables.manifest import ShardManifest, StageManifest
from corgi.tables.rejection import Rejection
from corgi.tables.schema import REQUEST_URL, Reason
from corgi.tables.store import Store

TAKEN_OVER = "carried over"
"""Format, in the facts, of an image whose original is no longer available."""
_CONTENT = "urn:sha256:"
_OF_THE_CAPTIONS = frozenset({Reason.NO_CAPTION, Reason.CAPTION_LENGTH, Reason.CAPTION_LANGUAGE})
"""Reasons decided before any request, from the captions, which may differ in another list."""
_PLANNED = ("uid", "url", "expected_hash", "location", "reason")
_VERDICT = ("uid", "reason", "detail", "http_status", "bytes")
_Row = Mapping[str, Any]


class EarlierDownloads:
    """Closed download stages with the same settings, whose outcomes are valid wherever the same URL is listed."""

    def __init__(self, store: Store, paths: Sequence[str], blocked: HashBlocklist) -> None:
        """Open the stages.

        Args:
            store: where they are stored.
            paths: paths of their manifests, the preferred ones first.
            blocked: hashes that are blocked now.

        """
        self._store, self._blocked = store, blocked
        self._stages = [store.read_stage(path) for path in paths]
        self._block_as_much = [self._blocks_as_much(stage) for stage in self._stages]

    def outcomes(self, plan: pa.Table) -> KnownOutcomes:
        """Return the outcomes of those rows of a plan that an earlier stage has settled.

        A URL has the same outcome if the plan requests the same text of it and expects the same content. A stored image is also
        valid if only now a hash is expected, and its hash is equal.
        """
        wanted = {row["url"]: row for row in _planned(plan) if row["reason"] is None}
        found: dict[str, Outcome] = {}
        for stage, blocks_as_much in zip(self._stages, self._block_as_much, strict=True):
            urls = [url for url in wanted if url not in found]
            for shard, rows in shards_with(self._store, stage, urls):
                found |= self._of_shard(shard, {urls[row]: wanted[urls[row]] for row in rows}, blocks_as_much)
        return KnownOutcomes(found)

    def _of_shard(
        self, shard: ShardManifest, wanted: Mapping[str, _Row], blocks_as_much: bool
    ) -> dict[str, Outcome]:
        """Return the outcomes that a shard has for some URLs; none if its tables are damaged or missing."""
        plan = readable(self._store, shard.inputs["plan"][0])
        if plan is None:
            return {}
        try:
            planned = {row["uid"]: row for row in _planned(self._plan_rows(plan, set(wanted)))}
            outcomes = list(self._settled(shard, set(planned)))
        except StorageError as error:
            if error.may_pass:
                raise
            return {}
        return {
            planned[uid]["url"]: outcome
            for uid, outcome in outcomes
            if _holds(outcome, planned[uid], wanted[planned[uid]["url"]], blocks_as_much)
        }

    def _plan_rows(self, plan: ShardManifest, urls: set[str]) -> pa.Table:
        """Return the rows of a plan that have one of these URLs."""
        table = self._store.read(plan, "plan")
        return table.filter(is_in(table["url"], urls))

    def _settled(self, shard: ShardManifest, uids: set[str]) -> Iterator[tuple[str, Outcome]]:
        ledger = self._store.read(shard, "ledger", list(_VERDICT))
        verdicts = {row["uid"]: row for row in ledger.filter(is_in(ledger["uid"], uids)).to_pylist()}
        for uid, row in verdicts.items():
            if row["reason"] is not None:
                yield uid, _rejection(row)
        kept = {uid for uid, row in verdicts.items() if row["reason"] is None}
        if kept:
            images = self._store.read(shard, "images", ["uid", *IMAGE_FIELDS])
            for row in images.filter(is_in(images["uid"], kept)).to_pylist():
                yield row["uid"], _image(row, verdicts[row["uid"]])

    def _blocks_as_much(self, stage: StageManifest) -> bool:
        """Return whether everything that a stage's plan blocked is also blocked now."""
        first = readable(self._store, stage.shards[0].path) if stage.shards else None
        plan = readable(self._store, first.inputs["plan"][0]) if first is not None else None
        if plan is None:
            return False
        try:
            was = blocked_hashes(self._store, plan)
        except StorageError:
            return False
        return bool(np.isin(was.digests, self._blocked.digests).all())


def _planned(plan: pa.Table) -> list[dict[str, Any]]:
    names = [*_PLANNED, *([REQUEST_URL.name] if REQUEST_URL.name in plan.column_names else [])]
    return [{REQUEST_URL.name: None, **row} for row in plan.select(names).to_pylist()]


def _holds(outcome: Outcome, was: _Row, now: _Row, blocks_as_much: bool) -> bool:
    """Return whether the outcome of a row of an earlier plan is valid for the row as it is planned now."""
    if was["reason"] is not None:
        return False
    if isinstance(outcome, StoredImage):
        is_content = now["url"].startswith(_CONTENT)
        is_expected = now["expected_hash"] in (None, was["expected_hash"], f"sha256:{outcome.sha256}")
        return is_expected and (is_content or was["location"] == now["location"])
    asked = ("location", "expected_hash", REQUEST_URL.name)
    if outcome.reason in _OF_THE_CAPTIONS or (outcome.reason is Reason.BLOCKED_HASH and not blocks_as_much):
        return False
    return all(was[name] == now[name] for name in asked)


def _rejection(row: _Row) -> Rejection:
    return Rejection(Reason(row["reason"]), row["detail"] or "", row["http_status"], row["bytes"])


def _image(row: _Row, verdict: _Row) -> StoredImage:
    fields = {name: row[name] for name in IMAGE_FIELDS}
    return StoredImage(
        **fields, format=TAKEN_OVER, http_status=verdict["http_status"], num_bytes=verdict["bytes"]
    )
