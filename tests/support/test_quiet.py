"""The check that `.ci/run` puts behind `make smoke`: our lines pass, each stranger fails it, and so do too many."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.quiet import MOST_LINES

SCRIPT = Path(__file__).resolve().parent / "quiet.py"
OURS = """\
installing into .venv: 8 GB, most of it CUDA libraries, a few minutes; log: .venv/install.log
[  10.1 s] rendering pictures: 120 of 300 pictures
this takes: 2 CPU cores, under 4 minutes.
disk: under 1 GB below runs/ for the packaged pictures; Ctrl-C stops, and the same command resumes
300 pictures, 300 rendered now, 552 rows, http://127.0.0.1:8047
Pictures, rasterised: OpenMoji 17.0.0 (openmoji.org), the open-source emoji and icon project, CC BY-SA 4.0
log: runs/smoke/logs/2026-11-28T14-24-13-9727.log
[   0.0 s] plan: done before
[   0.2 s] download: runs
[   0.2 s] embed: follows download, shard by shard
[  12.4 s] download: 2 of 5 shards, 98.6% of 552 rows kept, 112 rows/s
[  13.3 s] download: 552 in = 544 kept + 8 rejected (decode_failed 2, opted_out 6)
[  13.4 s] tower: 40 of 60 steps, loss 0.6916
[  41.0 s] prior-shifted and 1 after it: 80 of 120 steps, prior-diagonal, loss 0.4000
[  79.2 s] prior: runs at the same time as later stages
[ 115.0 s] autoencoder: 563 in = 563 kept + 0 rejected
smoke: 10 stages ran, the rest was done before, 163.2 s
  runs/smoke/report.html
next:
  .venv/bin/corgi serve runs/smoke
  .venv/bin/corgi generate runs/smoke "red heart" --n 4
"""
STRANGERS = [
    "rm -rf runs/smoke",
    "2026-11-28 14:24:14,313\tWARNING authentication_token_setup.py:85 -- Token authentication is enabled for this Ray cluster.",
    "download:   0%|          | 0/5 [00:00<?, ?shard/s]",
    "(MapWorker(MapBatches(ShardMaker)) pid=9965) KeyError: '/mp-y19rmcnq'",
    "Traceback (most recent call last):",
    "KeyError: '/mp-y19rmcnq'",
    "[  13.3 s] download: 552 in = 544 kept + 8 rejected (decode_failed 2)(pid=7) warning",
    "tower: step 20/60, loss 2.1487, lr 1.00e-03, 1022 samples/s, waits 3%",
    "No broken requirements found.",
    "wandb: Tracking run with wandb version 0.31",
    "",
]


def check(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT)], input=text, capture_output=True, text=True, check=False
    )


def test_our_lines_pass_and_are_handed_on():
    done = check(OURS)
    assert (done.returncode, done.stdout, done.stderr) == (0, OURS, "")


@pytest.mark.parametrize("line", STRANGERS)
def test_a_line_of_anyone_else_fails_and_is_named(line):
    done = check(f"{OURS}{line}\n")
    assert done.returncode == 1
    assert done.stderr == f"not a line of ours: {line!r}\n"


def test_too_many_lines_fail():
    assert check("[   0.0 s] plan: done before\n" * MOST_LINES).returncode == 0
    done = check("[   0.0 s] plan: done before\n" * (MOST_LINES + 1))
    assert done.returncode == 1
    assert f"{MOST_LINES} at most" in done.stderr
