"""In which ways a trained arm is sampled."""

from corgi.comparison.scores import samplings
from corgi.settings.compare import ScoreSettings


def test_a_one_pass_arm_is_sampled_in_one_step_and_a_diffusion_arm_in_every_way(objective_of) -> None:
    score = ScoreSettings(samplers=("ancestral", "ddim"), steps=(2, 8))
    assert [s.steps for s in samplings(objective_of("regression"), score)] == [1]
    ways = samplings(objective_of("dalle2"), score)
    assert len(ways) == 2 * 2 * 2
    assert {s.num_candidates for s in ways} == {1, 2}
