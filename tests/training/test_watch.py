"""What the screen of a training's driver shows: the steps that the metric lines tell of, over all trainings of one worker group."""

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from corgi.flow import screen
from corgi.training import watch
from tests.support.tiny_training import tiny_training
from tests.support.waiting import wait_until


@pytest.fixture
def two(tmp_path):
    first = tiny_training(tmp_path / "first", num_steps=40)
    second = tiny_training(tmp_path / "second", num_steps=40)
    return [replace(first, name="shifted"), replace(second, name="plain")]


def write(training, *lines, torn=""):
    training.path.mkdir(parents=True, exist_ok=True)
    training.metrics_file.write_text("".join(f"{json.dumps(line)}\n" for line in lines) + torn)


def test_nothing_is_reached_before_the_first_line(two):
    assert watch.reached(two) == (0, "")


def test_steps_of_trainings_that_follow_each_other_add_up(two):
    write(two[0], {"step": 20, "loss": 0.5}, {"step": 40, "loss": 0.25})
    assert watch.reached(two) == (40, "shifted, loss 0.2500")
    write(two[1], {"step": 10, "loss": 0.75})
    assert watch.reached(two) == (50, "plain, loss 0.7500")


def test_a_line_without_loss_and_one_half_written_are_borne(two):
    write(two[0], {"step": 20, "loss": 0.5}, {"step": 20, "val/loss": 1.0}, torn='{"step": 4')
    assert watch.reached(two) == (20, "shifted")
    write(two[0], torn='{"st')
    assert watch.reached(two) == (0, "")


def test_the_screen_follows_the_file_while_the_block_waits(two, monkeypatch):
    seen = []

    class Bar:
        def reach(self, done, note=""):
            seen.append((done, note))

    @contextmanager
    def bar(label, total, unit):
        seen.append((label, total, unit))
        yield Bar()

    monkeypatch.setattr(screen, "bar", bar)
    monkeypatch.setattr(watch, "WATCH_EVERY_S", 0.01)
    with watch.watched(two):
        write(two[0], {"step": 20, "loss": 0.5})
        wait_until(lambda: (20, "shifted, loss 0.5000") in seen, "the line is shown")
    assert seen[0] == ("shifted and 1 after it", 80, "step")
    assert (20, "shifted, loss 0.5000") in seen
