"""Scripts run where corgi cannot be imported, in forks of one interpreter: diffusers is imported once for all of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

_PARENT = """
import json, os, sys, traceback

sys.modules["corgi"] = None  # importing it fails from here on
from diffusers import DiffusionPipeline

for line in sys.stdin:
    script, arguments, folder = json.loads(line)
    child = os.fork()
    if child == 0:
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{folder}/stranger.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os.chdir(folder)
        sys.argv, code = ["-c", *arguments], 1
        try:
            exec(compile(script, "stranger", "exec"), {"__name__": "__main__"})
            code = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Strangers:
    """One interpreter that knows diffusers and no corgi."""

    def __init__(self, folder: Path) -> None:
        """Start it; `folder` is where Hugging Face's libraries keep files."""
        environment = {**os.environ, "HF_HOME": str(folder), "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PARENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )

    def run(self, script: str, folder: Path, *arguments: str | Path) -> str:
        """Run a script in a folder; return what it printed.

        Raises:
            AssertionError: it failed.

        """
        assert self._process.stdin
        assert self._process.stdout
        line = json.dumps([script, [str(one) for one in arguments], str(folder)])
        print(line, file=self._process.stdin, flush=True)
        code = self._process.stdout.readline().strip()
        assert code == "0", (folder / "stranger.err").read_text()[-3000:]
        return (folder / "stranger.out").read_text()

    def close(self) -> None:
        """End the interpreter."""
        self._process.communicate()
