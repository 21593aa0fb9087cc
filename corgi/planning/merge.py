"""Merges all list rows that name one URL into one plan row, for a whole shard at once."""

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from corgi.planning.blocklist import Blocklist
from corgi.planning.partition import digests_of
from corgi.settings.data import PlanSettings
from corgi.settings.errors import InputError
from corgi.sources.identity import splits_of
from corgi.tables.arrow import pc
from corgi.tables.schema import PLAN, REQUEST_URL

Offsets = Int[np.ndarray, "urls_plus_one"]
_CAPTIONS = PLAN.field("captions").type


def merged(rows: pa.Table, names: pa.Array, settings: PlanSettings, blocklist: Blocklist) -> pa.Table:
    """Return the PLAN table of a shard's rows, sorted by uid.

    Captions are distinct and in the order of their rows; a URL listed under several groups gets the smallest; for other
    columns the first cell that is not null is used. The requested URL is the text of its first row. The column that stores
    it is present only if a row of the shard needs it, so that the plans of all other lists are unchanged.

    Args:
        rows: SPILL rows of the shard, in any order.
        names: the sources' digests; a row's `source` is an index into them.
        settings: split shares and seed.
        blocklist: what is rejected before any request.

    Raises:
        InputError: two URLs of the shard were given the same uid.

    """
    if rows.num_rows == 0:
        return PLAN.empty_table()
    digests = digests_of(rows)
    order = np.lexsort((rows["row"].to_numpy(), rows["source"].to_numpy(), digests))
    rows, digests = rows.take(pa.array(order)).combine_chunks(), digests[order]
    is_first = np.ones(len(digests), bool)
    is_first[1:] = digests[1:] != digests[:-1]
    starts = np.flatnonzero(is_first)
    offsets = np.append(starts, len(digests))
    url = rows["url"].take(pa.array(starts))
    group = _smallest_group(rows, offsets, url)
    firsts = {
        name: _first(rows[name], offsets) for name in ("uid", "expected_hash", "location", "additional")
    }
    plan = {
        **firsts,
        "uid": pc.coalesce(firsts["uid"], _hex(digests[starts])),
        "url": url,
        "group": group,
        "split": _splits(group, settings),
        "captions": _captions(rows, offsets),
        "sources": _lists(names.take(rows["source"].combine_chunks()), offsets),
        "rows": _lists(rows["row"].combine_chunks(), offsets),
        "reason": _reasons(rows["reason"], offsets, url, digests[starts], firsts, blocklist),
    }
    table = pa.table([plan[name] for name in PLAN.names], schema=PLAN)
    request_url = rows["request_url"].take(pa.array(starts))
    if request_url.null_count < len(starts):
        table = table.append_column(REQUEST_URL, request_url)
    if firsts["uid"].null_count == len(starts):
        return table
    _check_distinct(table["uid"])
    return table.sort_by("uid")


def _check_distinct(uids: pa.ChunkedArray) -> None:
    counts = pc.value_counts(uids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise InputError(
            f"plan.uid_col: uid {twice[0]['values'].as_py()} names two URLs; nothing was fetched; correct the list or set plan.uid_col=null"
        )


def _groups_of(positions: np.ndarray, offsets: Offsets) -> np.ndarray:
    """Return the group of each row index."""
    return np.searchsorted(offsets, positions, side="right") - 1


def _lists(values: pa.Array | pa.ChunkedArray, offsets: Offsets) -> pa.Array:
    flat = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _first(column: pa.ChunkedArray, offsets: Offsets) -> pa.Array:
    """Return each group's first cell that is not null."""
    flat = _flat(column)
    if flat.null_count == len(flat):
        return pa.nulls(len(offsets) - 1, flat.type)
    at = np.flatnonzero(flat.is_valid().to_numpy(zero_copy_only=False))
    groups, first = np.unique(_groups_of(at, offsets), return_index=True)
    chosen = np.full(len(offsets) - 1, -1, np.int64)
    chosen[groups] = at[first]
    return flat.take(pa.array(chosen, mask=chosen < 0))


def _smallest_group(rows: pa.Table, offsets: Offsets, url: pa.ChunkedArray) -> pa.Array:
    groups = _flat(rows["group"])
    groups = pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups)
    if groups.null_count == len(groups):
        return _flat(url)
    coded = pc.coalesce(groups, _flat(rows["url"])).dictionary_encode()
    order = pc.sort_indices(coded.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    smallest = np.minimum.reduceat(ranks[coded.indices.to_numpy()], offsets[:-1])
    return coded.dictionary.take(pa.array(order[smallest]))


def _splits(groups: pa.Array, settings: PlanSettings) -> pa.Array:
    coded = groups.dictionary_encode()
    names = coded.dictionary.cast(pa.binary()).to_pylist()
    splits = splits_of(names, settings.seed, settings.val_share, settings.test_share)
    return pa.array(splits, pa.string()).take(coded.indices)


def _captions(rows: pa.Table, offsets: Offsets) -> pa.Array:
    lists = _flat(rows["captions"])
    captions, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    kinds = _flat(rows["kind"]).take(parents)
    kinds = pc.if_else(pc.equal(pc.fill_null(kinds, ""), ""), "full", kinds)
    words = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(captions), ""), False)
    at = np.flatnonzero(words.to_numpy(zero_copy_only=False))
    codes = captions.take(pa.array(at)).dictionary_encode().indices.to_numpy()
    is_full = pc.equal(kinds, "full").to_numpy(zero_copy_only=False)[at]
    groups = _groups_of(parents.to_numpy()[at], offsets)
    # one key per (group, caption, kind); its first row represents all
    keys = np.stack([groups, codes.astype(np.int64) * 2 + is_full], axis=1)
    _, first = np.unique(keys, axis=0, return_index=True) if len(keys) else (None, np.empty(0, np.int64))
    kept = np.sort(first)
    counts = np.bincount(groups[kept], minlength=len(offsets) - 1)
    chosen = pa.array(at[kept])
    values = pa.StructArray.from_arrays(
        [captions.take(chosen), kinds.take(chosen)], fields=list(_CAPTIONS.value_type)
    )
    return pa.ListArray.from_arrays(pa.array(np.append(0, np.cumsum(counts)), pa.int32()), values)


def _reasons(
    reasons: pa.ChunkedArray,
    offsets: Offsets,
    url: pa.ChunkedArray,
    digests: np.ndarray,
    firsts: dict[str, pa.Array],
    blocklist: Blocklist,
) -> pa.Array:
    """Return why each URL is rejected before any request, or null: all its rows have a reason, or a blocklist names it."""
    flat = _flat(reasons)
    given = pa.nulls(len(digests), pa.string())
    if flat.null_count < len(flat):
        is_fine = np.logical_or.reduceat(flat.is_null().to_numpy(zero_copy_only=False), offsets[:-1])
        given = pc.if_else(pa.array(is_fine), pa.scalar(None, pa.string()), _first(reasons, offsets))
    if not blocklist:
        return given
    urls = url.to_pylist()
    hashes = firsts["expected_hash"].to_pylist()
    contents = [text.removeprefix("urn:") if text.startswith("urn:sha256:") else None for text in urls]
    known = [[text for text in pair if text] for pair in zip(hashes, contents, strict=True)]
    blocked = [None if reason is None else str(reason) for reason in blocklist.reasons(urls, digests, known)]
    return pc.coalesce(pa.array(blocked, pa.string()), given)


def _hex(digests: np.ndarray) -> pa.Array:
    text = np.ascontiguousarray(digests).tobytes().hex().encode()
    offsets = np.arange(0, len(text) + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(len(digests), pa.py_buffer(offsets), pa.py_buffer(text))


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(found, pa.ChunkedArray):
        return pa.concat_arrays(found.chunks)
    return found
