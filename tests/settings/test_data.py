"""Settings of plan and download: one stands for a list of one, and what is named twice over is named by its parts."""

from typing import Any

import pytest
from pydantic import ValidationError

from corgi.settings.data import DownloadSettings, PlanSettings


@pytest.mark.parametrize(
    "name", ["input", "block_urls", "block_domains", "block_hashes", "save_additional_columns"]
)
def test_one_stands_for_a_list_of_one(name: str) -> None:
    one = PlanSettings.model_validate({name: "a"})
    assert one == PlanSettings.model_validate({name: ["a"]})
    assert getattr(one, name) == ("a",)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("resolve", "site.test:80=127.0.0.1:8047", "site.test=127.0.0.1"),
        ("resolve", "site.test:80=127.0.0.1:8047", "site.test:80=127.0.0.1:x"),
        ("allow_private", "127.0.0.1:8047", "127.0.0.1"),
        ("allow_private", "[::1]:80", "http://127.0.0.1:80/ "),
    ],
)
def test_an_address_has_a_host_and_a_port(name: str, good: str, bad: str) -> None:
    assert getattr(DownloadSettings.model_validate({name: [good]}), name) == (good,)
    with pytest.raises(ValidationError):
        DownloadSettings.model_validate({name: [bad]})


@pytest.mark.parametrize("trusted", [False, True])
def test_an_engine_without_guards_asks_for_trust(trusted: bool) -> None:
    asked: dict[str, Any] = {"engine": "img2dataset", "trust_list": trusted}
    if trusted:
        assert DownloadSettings.model_validate(asked).engine == "img2dataset"
    else:
        with pytest.raises(ValidationError, match="trust_list=true"):
            DownloadSettings.model_validate(asked)
