"""The demo's decoder killed, its prior at other worker counts, through their scripts: the same models."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.training.test_demo import at, curve, ended, fresh, kill_after_a_checkpoint, made, start
from tests.support.smoke_run import Smoke


@pytest.mark.flow
@pytest.mark.timeout(600)
def test_a_killed_decoder_is_bit_equal(smoke: Smoke, tmp_path: Path, promise: Any) -> None:
    killed = fresh(smoke, tmp_path / "killed", "decoder")
    kill_after_a_checkpoint(start("decoder", smoke, killed), killed, "decoder")
    ended(start("decoder", smoke, killed), killed)
    assert made(killed, "decoder") == made(smoke.runs, "decoder")
    promise(16, "the demo's decoder, 2 workers, stage 1, fp32: bit-equal after SIGKILL and resume")


@pytest.mark.flow
@pytest.mark.timeout(600)
def test_two_one_two_four_workers_are_one_prior(smoke: Smoke, tmp_path: Path, promise: Any) -> None:
    root, whole = (fresh(smoke, tmp_path / name, "prior") for name in ("root", "whole"))
    options = at(1, "fp32")
    ended(start("prior", smoke, whole, *options), whole)
    for workers in (2, 1, 2):
        process = start("prior", smoke, root, *options, f"prior.training.num_workers={workers}")
        kill_after_a_checkpoint(process, root, "prior")
    ended(start("prior", smoke, root, *options, "prior.training.num_workers=4"), root)
    left, right = curve(root), curve(whole)
    assert left.keys() == right.keys()
    worst = max(abs(left[step] - right[step]) for step in left)
    assert worst < 1e-4
    promise(16, f"the demo's prior at 2, 1, 2, 4 workers, killed between: loss within {worst:.1e}")
