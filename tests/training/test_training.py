"""A training is plain data: its objective travels by name, and its checkpoints are found again by what decides the weights."""

from pathlib import Path

import pytest
from ray import cloudpickle

from corgi.clip.projection_heads import HeadsObjective
from corgi.comparison.contest import ArmObjective, OnePassObjective
from corgi.settings.section import digest
from corgi.training.decoder import DecoderObjective
from corgi.training.prior import PriorObjective
from tests.support.tiny_training import TinyObjective, tiny_training

OBJECTIVES = {
    "corgi.clip.projection_heads:HeadsObjective": HeadsObjective,
    "corgi.comparison.contest:ArmObjective": ArmObjective,
    "corgi.comparison.contest:OnePassObjective": OnePassObjective,
    "corgi.training.decoder:DecoderObjective": DecoderObjective,
    "corgi.training.prior:PriorObjective": PriorObjective,
}
"""By the names under which checkpoints of unfinished trainings know them."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_unfinished_trainings_know_their_checkpoints_by_the_name_of_the_objective(tmp_path, name):
    training = tiny_training(tmp_path)
    object.__setattr__(training, "objective", OBJECTIVES[name])
    settings = {**training.settings.meaning(), "zero_stage": training.settings.zero_stage}
    assert training.meaning == digest({"objective": name, "seed": training.seed, "settings": settings})


def test_a_worker_gets_the_objective_by_name(tmp_path):
    sent = cloudpickle.dumps(tiny_training(tmp_path, arguments={"dim": 4}))
    assert len(sent) < 4096
    assert b"TinyObjective" in sent
    built = cloudpickle.loads(sent).build()
    assert type(built) is TinyObjective
    assert built.dim == 4


def test_a_relative_folder_is_refused():
    with pytest.raises(ValueError, match="workers run in other folders"):
        tiny_training(Path("here"))
