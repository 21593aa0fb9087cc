"""The whole pipeline, from a list of URLs to a text-to-image model: `python pipelines/full.py RECIPE [key.path=value ...]`.

This is the only place that names the stages and their order. Finished work is skipped, unfinished work resumes.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.evaluation import results
from corgi.flow import command
from corgi.flow.dag import Stage


def stages(recipe: Any) -> list[Stage]:
    """Return the stages of a recipe in order; each maps committed tables to committed tables."""
    tower = ("tower",) if recipe.tower is not None else ()
    listed = [
        Stage(
            "plan",
            "corgi.data.plan:run",
            settings=("plan",),
            version=2,
            fingerprint="corgi.data.source:fingerprint",
            amend="corgi.data.amend:plan",
        ),
        Stage(
            "download",
            "corgi.data.download:run",
            ("plan",),
            ("download",),
            partition="plan",
            version=4,
            amend="corgi.data.amend:download",
        ),
        Stage("tower", "corgi.clip.train:run", ("download",), ("tower",)),
        Stage(
            "embed",
            "corgi.clip.embed:run",
            ("download", *tower),
            ("embed",),
            partition="download",
            fingerprint="corgi.clip.references:fingerprint",
            version=2,
        ),
        Stage("curate", "corgi.data.curate:run", ("download", "embed"), ("curate",), version=2),
        Stage(
            "shift",
            "corgi.clip.cluster:run",
            ("download", "embed", "curate"),
            ("shift",),
            fingerprint="corgi.clip.references:earlier_shift",
            cost="corgi.clip.memory:plan_lines",
            version=2,
        ),
        Stage(
            "prior",
            "corgi.training.prior:run",
            ("embed", "curate", "shift"),
            ("prior",),
            version=2,
            cost="corgi.training.cost:lines",
        ),
        Stage("autoencoder", "corgi.training.autoencoder:run", ("download", "curate"), ("autoencoder",)),
        Stage("decoder", "corgi.training.decoder:run", ("embed", "curate", "autoencoder"), ("decoder",)),
        Stage(
            "evaluate",
            "corgi.evaluation.evaluate:run",
            ("download", *tower, "embed", "curate", "shift", "prior", "autoencoder", "decoder"),
            ("evaluate", "prior", "decoder"),
        ),
    ]
    return [stage for stage in listed if stage.name != "tower" or tower]


def main(only: str | None = None) -> int:
    """Run the command line; `only` is the stage of a script that runs one."""
    return command.main(stages, results.publish, only, canonical="corgi.data.identity:canonical_url")


if __name__ == "__main__":
    sys.exit(main())
