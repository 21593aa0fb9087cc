"""The digest of a run's models: another model is another digest."""

from pathlib import Path

import pytest

from corgi.inference.run_models import STAGES, cascade_of, models_digest, shards_of
from corgi.names import UPSAMPLERS
from corgi.settings.errors import InputError
from tests.support.painting_run import painting_run


def test_law_the_digest_changes_with_each_model_and_with_nothing_else(tmp_path: Path) -> None:
    shards, others = (shards_of(painting_run(tmp_path, f"run{seed}", seed)) for seed in (0, 1))
    assert set(shards) == set(STAGES)
    named = models_digest(shards)
    for stage in ("prior", "decoder", "autoencoder"):
        assert models_digest({**shards, stage: others[stage]}) != named
    assert models_digest({**shards, "embed": others["embed"]}) == named


def test_law_the_steps_of_a_cascade_are_models_of_the_run(tmp_path: Path) -> None:
    runs = [painting_run(tmp_path, f"run{seed}", seed, num_upsamplers=2) for seed in (0, 1)]
    shards, others = map(shards_of, runs)
    assert set(shards) == {*STAGES, *UPSAMPLERS}
    assert [made.stage for made in cascade_of(shards)] == list(UPSAMPLERS)
    named = models_digest(shards)
    for stage in UPSAMPLERS:
        assert models_digest({**shards, stage: others[stage]}) != named
    plain = {name: made for name, made in shards.items() if name not in UPSAMPLERS}
    assert models_digest(plain) == models_digest(shards_of(painting_run(tmp_path, "plain"))) != named


def test_a_step_that_is_not_trained_yet_is_one_line(tmp_path: Path) -> None:
    """The run's recipe asks for it: without it another picture would be painted."""
    run = painting_run(tmp_path, num_upsamplers=1)
    run.supersede(["upsampler"])
    with pytest.raises(InputError, match="has no complete stage upsampler"):
        shards_of(run)
