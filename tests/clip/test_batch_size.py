"""The measured batch size: the smallest that is about the fastest, measured once, kept in the store."""

import pytest

from corgi.clip import batch_size
from corgi.clip.batch_size import best_size, measured_batch_size
from corgi.clip.embed import with_batch_size
from corgi.tables.store import ShardTask


def test_the_smallest_size_near_the_best_rate_wins_and_memory_ends_the_search() -> None:
    asked: list[int] = []

    def seconds(size: int) -> float | None:
        asked.append(size)
        return None if size > 128 else 0.01 + size * 0.001

    assert best_size(seconds) == 128
    assert asked == [16, 32, 64, 128, 256]
    assert best_size(lambda size: size * 0.001) == 16
    assert best_size(lambda size: None) == 16
    assert best_size(lambda size: 3.0 * size / 16) == 16


def test_it_is_measured_once_a_kind_of_device(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    monkeypatch.setattr(batch_size, "load_tower", lambda ref, precision: None)
    monkeypatch.setattr(batch_size, "_seconds", lambda towers, size: measured.append("x") or size * 0.001)
    tower = [{"name": "t", "model": "RN50", "pretrained": "random", "config": None}]
    assert measured_batch_size(str(tmp_path), tower, "fp32") == 16
    count = len(measured)
    assert measured_batch_size(str(tmp_path), tower, "fp32") == 16
    assert len(measured) == count
    monkeypatch.setattr(batch_size, "device_kind", lambda: "another")
    measured_batch_size(str(tmp_path), tower, "fp32")
    assert len(measured) == 2 * count


def test_the_size_is_among_the_resolved_settings_and_not_in_the_key() -> None:
    task = ShardTask("r", "embed", "0", "key", 1, "c", {"embed": {"batch_size": None, "precision": "bf16"}})
    (told,) = with_batch_size([task], 256)
    assert told.settings["embed"] == {"batch_size": 256, "precision": "bf16"}
    assert (told.key, task.settings["embed"]["batch_size"]) == ("key", None)
