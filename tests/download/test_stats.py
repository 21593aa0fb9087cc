"""Shard statistics in img2dataset's words: its keys, its strings, every URL counted once."""

from dataclasses import replace
from typing import Any

import pytest

from corgi.download.img2dataset_engine import rejection_of
from corgi.download.stats import DOWNLOAD_REASONS, shard_stats, status_string
from corgi.imaging.decode import StoredImage, decode
from corgi.settings.data import DownloadSettings
from corgi.tables.rejection import Rejection
from corgi.tables.schema import Reason
from tests.support.pictures import encoded, scene

THEIRS = {
    "count", "successes", "failed_to_download", "failed_to_resize", "duration", "start_time", "end_time", "status_dict",
}  # fmt: skip


def test_every_url_is_counted_once_under_their_keys() -> None:
    picture = decode(encoded(scene(1)), DownloadSettings())
    assert isinstance(picture, StoredImage)
    outcomes = [
        *(Rejection(reason, http_status=404) for reason in Reason),
        *[replace(picture, num_bytes=100)] * 3,
    ]
    stats: dict[str, Any] = shard_stats(outcomes, 100.0, 102.0)
    assert set(stats) >= THEIRS
    assert stats["count"] == stats["successes"] + stats["failed_to_download"] + stats["failed_to_resize"]
    assert (stats["successes"], stats["failed_to_download"]) == (3, len(DOWNLOAD_REASONS))
    assert sum(stats["status_dict"].values()) == stats["count"] == len(outcomes)
    assert (stats["duration"], stats["img_per_sec"], stats["bytes"]) == (2.0, len(outcomes) / 2, 300)
    assert stats["status_dict"]["success"] == 3
    assert stats["status_dict"]["HTTP Error 404: Not Found"] == 1


@pytest.mark.parametrize(
    "reason",
    [
        Reason.DNS,
        Reason.CONNECTION,
        Reason.TIMEOUT,
        Reason.TOO_MANY_REDIRECTS,
        Reason.SHORT_BODY,
        Reason.OPTED_OUT,
        Reason.DECODE_FAILED,
        Reason.TOO_SMALL,
        Reason.TOO_MANY_PIXELS,
        Reason.ASPECT_RATIO,
        Reason.HASH_MISMATCH,
        Reason.BAD_URL,
    ],
)
def test_a_status_string_read_back_is_the_reason_it_stands_for(reason: Reason) -> None:
    assert rejection_of(status_string(Rejection(reason))).reason == reason
