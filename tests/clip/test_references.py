"""Which towers a recipe means."""

from pathlib import Path

import pytest

from corgi.clip.references import tower_refs
from corgi.clip.stages import Embed
from corgi.settings.clip import EmbedSettings, TowerRef
from corgi.settings.recipe import Recipe
from corgi.tables.store import Store


def test_local_files_come_back_absolute_and_tags_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w.pt").write_bytes(b"weights")
    towers = (
        TowerRef(name="a", model="ViT-B-32", pretrained="w.pt"),
        TowerRef(name="b", model="ViT-B-32", pretrained="openai"),
    )
    first, second = tower_refs(Store(tmp_path), EmbedSettings(towers=towers), None)
    assert first.pretrained == str(tmp_path / "w.pt")
    assert second.pretrained == "openai"


def test_a_changed_checkpoint_changes_the_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    tower = {"name": "a", "model": "ViT-B-32", "pretrained": str(path)}
    recipe = Recipe.model_validate({"name": "x", "embed": {"towers": [tower]}})
    path.write_bytes(b"one")
    first = Embed().fingerprint(recipe)
    path.write_bytes(b"two")
    assert len(first) == 1
    assert Embed().fingerprint(recipe) != first
