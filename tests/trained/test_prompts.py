"""README's examples paint what they say: judged by the network that evaluates the demo, which no stage learned from."""

from pathlib import Path

import numpy as np
import pytest

import corgi
from corgi.evaluation.judges import load_judge
from corgi.evaluation.training_pictures import centred
from corgi.imaging.decode import decode_stored
from corgi.settings.models import EvaluateSettings
from corgi.tables.run import Run
from tests.support.readme import named, prompts

RUN = Path(__file__).resolve().parents[2] / "runs" / "openmoji"
NUM_PAINTED = 8
LARGEST_SHARE = 0.05
"""Of all other concepts, how many may be nearer to a painted picture than the one asked for; chance is .5."""

pytestmark = [pytest.mark.flow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def run() -> Run:
    return Run.open(RUN)


@pytest.fixture(scope="module")
def judged(run: Run):
    """The judge, the centre of its features, and each concept's pictures in its space."""
    settings = EvaluateSettings.recorded(run.shards("evaluate")[0].settings["evaluate"])
    assert settings.judge is not None
    judge = load_judge(settings.judge, ())
    features, concepts = [], []
    for shard in run.shards("download"):
        rows = run.store.read(shard, "images", ["image", "additional"]).to_pylist()
        features.append(judge.features([decode_stored(row["image"]) for row in rows]))
        concepts += [dict(row["additional"])[settings.concept_col] for row in rows]
    all_features = np.concatenate(features)
    centre = all_features.mean(0)
    vectors = centred(all_features, centre)
    names, places = np.unique(concepts, return_inverse=True)
    return judge, centre, names, [vectors[places == place] for place in range(len(names))]


@pytest.fixture(scope="module")
def shares(judged) -> dict[str, dict[str, np.ndarray]]:
    """By prompt painted and prompt asked for: of all concepts, the share nearer to each painting than the one asked for."""
    judge, centre, names, by_concept = judged
    generator = corgi.load(RUN)
    found = {}
    for prompt in prompts():
        painted = centred(judge.features(generator.generate(prompt, n=NUM_PAINTED, seed=0)), centre)
        closeness = np.stack([(painted @ vectors.T).max(1) for vectors in by_concept], axis=1)
        asked = {other: closeness[:, list(names).index(named(other))] for other in prompts()}
        found[prompt] = {other: (closeness > own[:, None]).mean(1) for other, own in asked.items()}
    return found


@pytest.mark.parametrize("prompt", prompts())
def test_a_prompt_of_the_readme_is_painted_nearer_to_what_it_names_than_to_other_concepts(shares, prompt):
    """Of the seeds, at least half have fewer than one in twenty concepts nearer than the one named.

    A concept that any painting is near to would pass too, so the paintings of the other prompts must be farther from it.
    """
    own = np.median(shares[prompt][prompt])
    assert own < LARGEST_SHARE, shares[prompt][prompt].round(3).tolist()
    assert all(own < np.median(shares[other][prompt]) for other in prompts() if other != prompt)
