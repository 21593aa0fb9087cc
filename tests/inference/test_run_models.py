"""The digest of a run's models: another model is another digest."""

from pathlib import Path

from corgi.inference.run_models import STAGES, models_digest, shards_of
from tests.support.painting_run import painting_run


def test_law_the_digest_changes_with_each_model_and_with_nothing_else(tmp_path: Path) -> None:
    shards, others = (shards_of(painting_run(tmp_path, f"run{seed}", seed)) for seed in (0, 1))
    assert set(shards) == set(STAGES)
    named = models_digest(shards)
    for stage in ("prior", "decoder", "autoencoder"):
        assert models_digest({**shards, stage: others[stage]}) != named
    assert models_digest({**shards, "embed": others["embed"]}) == named
