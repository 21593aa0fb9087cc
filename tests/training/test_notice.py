import pytest

from corgi.training.checkpoint import Checkpoints
from corgi.training.loop import train_loop
from corgi.training.notice import Agreement
from tests.support.tiny_training import tiny_training
from tests.support.workers import run_workers


def test_alone_the_clock_of_this_worker_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("corgi.training.notice.time.monotonic", lambda: now[0])
    agreement = Agreement(60.0, 5.0)
    assert agreement.next() == (False, False)
    now[0] = 6.0
    assert agreement.next() == (False, True)
    assert agreement.next() == (False, False)
    now[0] = 61.0
    assert agreement.next() == (True, True)
    assert agreement.next() == (True, False)
    agreement.saved()
    assert agreement.next() == (False, False)
    never = Agreement(0.0, 5.0)
    now[0] = 10_000.0
    assert never.next() == (False, True)


def noticed(folder: str) -> None:
    from pathlib import Path

    from corgi.training import loop

    loop.NOTICE_EVERY_S = 0.0
    asked: list[int] = []
    training = tiny_training(
        Path(folder), num_steps=8, checkpoint_every_steps=100, checkpoint_every_minutes=0, zero_stage=0,
        arguments={"fault": {"kind": "raise", "step": 6, "global_batch": 8, "marker": f"{folder}/marker"}},
    )  # fmt: skip

    def notice() -> bool:
        asked.append(1)
        return len(asked) >= 3

    with pytest.raises(InterruptedError):
        train_loop(training, notice=notice)
    found = Checkpoints(training).newest()
    assert found is not None
    assert found.step == 4, "told one step late: the third look is after step 4"


@pytest.mark.slow
def test_a_notice_leaves_a_checkpoint_on_all_workers_at_one_step(tmp_path) -> None:
    run_workers(noticed, 2, str(tmp_path))
