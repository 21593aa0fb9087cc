"""Word encodings are those of the captions asked for, by row group or out of the whole shard."""

from pathlib import Path

import numpy as np
import pytest

from corgi.feeding.packed_rows import CaptionedRows
from corgi.feeding.packed_set import PackedSet
from corgi.feeding.word_states import WordStates, side_by_side
from corgi.tables.run import Run
from corgi.tables.schema import Split
from corgi.tables.store import ShardTask
from tests.support.objectives import ENCODER, WORD_WIDTH, add_words, commit_pack, word_state
from tests.support.tables import close_stage, some_pictures, tiny_run


def regrouped(run: Run) -> None:
    """Commit the embeddings again, their words in row groups of five captions."""
    made = []
    for shard in run.shards("embed"):
        task = ShardTask(
            str(run.store.root.parent), "embed", shard.shard, f"g{shard.shard}", 1, "c", shard.settings
        )
        with run.store.attempt(task) as attempt:
            for name in ("image_embeddings", "caption_embeddings"):
                attempt.write_table(name, run.store.read(shard, name))
            words = run.store.read(shard, "caption_tokens")
            sizes = [min(5, words.num_rows - first) for first in range(0, words.num_rows, 5)]
            facts = attempt.write_row_groups("caption_tokens", words, sizes)
            made.append(attempt.commit(shard.rows, facts))
    close_stage(run, "embed", made, ["download"])
    commit_pack(run)


@pytest.fixture(params=["whole", "grouped"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    made = tiny_run(tmp_path, some_pictures(40))
    add_words(made)
    if request.param == "grouped":
        regrouped(made)
    return made


def opened(run: Run) -> tuple[PackedSet, WordStates]:
    packed = PackedSet.open(str(run.store.root.parent), run.stages()["pack"].path)
    words = WordStates(run.store, packed.names, run.store.listed(run.stages()["embed"]), ENCODER)
    return packed, words


def test_the_states_are_those_of_the_captions_asked_for(run: Run) -> None:
    packed, words = opened(run)
    for number, shard in enumerate(run.shards("embed")):
        named = run.store.read(shard, "caption_embeddings", ["uid", "ordinal"]).to_pylist()
        rows = np.random.default_rng(0).permutation(len(named))[:20]
        uids = [named[row]["uid"] for row in rows]
        found = words.of(number, rows, uids)
        for row, state in zip(rows, found, strict=True):
            assert np.array_equal(state, word_state(named[row]["uid"], named[row]["ordinal"]))
        with pytest.raises(AssertionError, match="not of the same captions"):
            words.of(number, rows, uids[::-1])
    assert packed.names == [shard.shard for shard in run.shards("embed")]


@pytest.mark.law
def test_rows_have_the_words_of_their_own_captions(run: Run) -> None:
    packed, words = opened(run)
    rows = CaptionedRows(packed, Split.TRAIN, words)
    kinds = {"full": 0, "coarse": 1}
    uids = [uid for shard in run.embedded() for uid in shard.captioned_images(Split.TRAIN)["uid"].to_pylist()]
    seen = 0
    for unit, count in enumerate(rows.counts):
        loaded = rows.load(unit)
        for row in range(count):
            for kind, ordinal in kinds.items():
                state = word_state(uids[seen], ordinal)
                assert np.array_equal(loaded[f"{kind}_words"][row, 0], state)
                assert not any(len(rest) for rest in loaded[f"{kind}_words"][row, 1:])
            seen += 1
    assert seen == len(uids) > 0


def test_captions_side_by_side_are_followed_by_nothing() -> None:
    states = [np.full((n, 2), n, np.float16) for n in (1, 2, 3)]
    laid = side_by_side(states, np.array([2, 0, 1]), 2)
    assert [[len(cell) for cell in row[:3]] for row in laid] == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]


@pytest.mark.law
def test_captions_that_are_none_have_no_state_and_keep_the_width(run: Run) -> None:
    _, words = opened(run)
    assert words.of(0, np.zeros(0, np.int64), []) == []
    laid = side_by_side([], np.zeros(2, np.int64), words.width)
    assert [cell.shape for cell in laid[:, 0]] == [(0, WORD_WIDTH)] * 2
