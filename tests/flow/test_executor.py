"""The same work on Ray's workers and in this process: the same results, and no Ray where none is asked for."""

import subprocess
import sys

from corgi.flow.executor import call, in_process, is_in_process


def added(a: int, b: int) -> int:
    return a + b


def test_a_call_gives_the_same_on_a_worker_and_here(ray_local):
    assert not is_in_process()
    by_ray = call(added, 1, 0, 2, b=3)
    with in_process():
        assert is_in_process()
        assert call(added, 1, 0, 2, b=3) == by_ray == 5
    assert not is_in_process()


def test_what_is_done_here_imports_no_ray():
    code = """
import sys
from corgi.flow.cluster import connect
from corgi.flow.executor import call, in_process
with in_process():
    connect(None)
    assert call(max, 1000, 1000, 1, 2) == 2
assert "ray" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
