"""A stage made again with the same content leaves everything after it done, whatever its key has become."""

import json

import pytest

from corgi.flow import command
from corgi.flow.earlier import Earlier
from corgi.settings.section import digest
from tests.flow.conftest import ALL, Toy
from tests.support import toy_stages

NUMBERS, SQUARES, TOTAL = ALL[:4], ALL[4:8], ALL[8:]


@pytest.fixture
def raised(monkeypatch):
    """Raise the version of one stage of the toy, as a new commit of Corgi would."""
    made = toy_stages.stages

    def to(version: int, name: str = "numbers") -> None:
        def stages(recipe):
            found = made(recipe)
            vars(next(stage for stage in found if stage.name == name)).update(version=version)
            return found

        monkeypatch.setattr(toy_stages, "stages", stages)

    return to


def digests(toy: Toy) -> dict[str, str]:
    return {name: manifest.digest for name, manifest in toy.opened().stages().items()}


def test_equal_content_under_a_raised_version_redoes_nothing_after_it(finished, raised):
    before = digests(finished)
    raised(2)
    assert finished.run() == 0
    assert finished.made() == NUMBERS
    assert digests(finished) == before
    assert {shard.version for shard in finished.opened().shards("numbers")} == {2}
    assert finished.run() == 0
    assert finished.made() == []


def test_only_what_came_out_otherwise_is_redone_after_it(finished, raised):
    raised(2)
    finished.steer(salt="00002")
    assert finished.run() == 0
    assert finished.made() == [*NUMBERS, "squares/00002", *TOTAL]


def test_it_holds_from_version_to_version_though_garbage_is_collected_between(finished, raised):
    before = digests(finished)
    for version in (2, 3, 4):
        raised(version)
        assert finished.run() == 0
        assert finished.made() == NUMBERS
        assert finished.run("--gc") == 0
    assert digests(finished) == before
    assert finished.total() == sum(n**2 for n in range(12))


def test_an_interrupted_redo_loses_nothing_to_garbage_collection(finished, raised):
    raised(2)
    finished.steer(stop="numbers 2")
    assert finished.run() == 130
    assert list(finished.opened().stages()) == []
    assert finished.run("--gc") == 0
    finished.release("stop")
    assert finished.run() == 0
    assert finished.made() == NUMBERS
    assert finished.opened().facts["former"] == {}


def test_another_run_over_the_store_profits_too(finished, raised):
    raised(2)
    assert finished.run("name=second") == 0
    assert finished.made() == NUMBERS


def test_equal_content_under_other_settings_keeps_a_name_of_its_own(finished):
    assert finished.run("download.image_size=64") == 0
    assert finished.made() == SQUARES + TOTAL  # later stages may read settings beside the tables


def test_a_store_of_a_version_without_origins_is_read(finished, raised):
    """Manifests of 0.1 have neither origin, parts nor outside."""
    for place in (finished.root / "store").rglob("manifest-*.json"):
        told = json.loads(place.read_text())
        for name in ("origin", "parts", "outside", "content_digest"):
            told.pop(name, None)
        for entry in told.get("shards", ()):
            entry.pop("origin")
        place.write_text(json.dumps({**told, "content_digest": digest(told)}))
    assert finished.run() == 0
    assert finished.made() == []
    raised(2)
    assert finished.run() == 0
    assert finished.made() == NUMBERS


def test_a_damaged_manifest_is_nobodys(finished):
    run = finished.opened()
    recipe = command.load(finished.recipe, [])
    assert len(Earlier(run, "numbers", recipe, ("plan",)).of("00001")) == 1
    for place in (finished.root / "store" / "numbers" / "closed").rglob("manifest-*.json"):
        place.write_text("{}")
    (finished.root / "toy" / "run.json").write_text("{}")
    assert Earlier(run, "numbers", recipe, ("plan",)).of("00001") == ()
