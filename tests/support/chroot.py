"""A root folder of its own in which the steps of a Dockerfile are run: Debian by debootstrap, and this machine's Python.

It is what `FROM python:3.11-slim` gives, as far as it can be had without a registry of images. Packages come from where this
machine gets them: the settings of apt and pip are lent to the folder, and are no part of it.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.dockerfile import Step
from tests.support.programs import missing, require_program

_LENT = (
    "/etc/apt",
    "/etc/ssl",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/usr/share/ca-certificates",
)
"""Files of this machine that are mounted over the folder's own while a step runs."""
_LIBRARIES = (
    "ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,zlib1g"
)
"""What Python is linked with."""
_ENTER = """
set -e
mount --bind "$ROOT" "$ROOT"
cd "$ROOT"
mount -t proc proc proc
mount --rbind /dev dev
for path in $LENT; do
  [ -e "$path" ] || continue
  [ -d "$path" ] && mkdir -p "$ROOT$path" || touch "$ROOT$path"
  mount --bind -o ro "$path" "$ROOT$path"
done
exec chroot --userspec="$STEP_USER" "$ROOT" /usr/bin/env -i "$@"
"""


class Chroot:
    """The folder."""

    def __init__(self, root: Path) -> None:
        """Install Debian's base system and this machine's Python into a new folder."""
        self.root = root
        require_program("debootstrap")
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        done = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={_LIBRARIES}", release, str(root)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            missing(f"debootstrap failed: {done.stdout[-500:]}")
        unshipped = shutil.ignore_patterns("site-packages", "__pycache__", "test")
        shutil.copytree(
            sys.base_prefix, root / "usr/local", symlinks=True, dirs_exist_ok=True, ignore=unshipped
        )
        (root / "usr/local/lib/python3.11/site-packages").mkdir(exist_ok=True)
        self.run(
            "ldconfig && python3.11 -m ensurepip && ln -sf pip3.11 /usr/local/bin/pip", lent=pip_settings()
        )

    def run(
        self,
        command: str,
        user: str = "root",
        folder: str = "/",
        variables: Mapping[str, str] | None = None,
        lent: Mapping[str, str] | None = None,
    ) -> str:
        """Run a shell command in the folder and return its output.

        Raises:
            AssertionError: it failed.

        """
        own = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin", "HOME": "/root"}
        words = [f"{name}={value}" for name, value in {**own, **(variables or {}), **(lent or {})}.items()]
        inside = ["bash", "-c", f"cd {shlex.quote(folder)} && {command}"]
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "--pid",
                "--fork",
                "--propagation",
                "private",
                "bash",
                "-c",
                _ENTER,
                "bash",
                *words,
                *inside,
            ],
            env={**os.environ, "ROOT": str(self.root), "STEP_USER": user, "LENT": " ".join(_LENT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}"
        return done.stdout

    def follow(self, step: Step, context: Path) -> None:
        """Do one step of a Dockerfile; `context` is the folder that is built from."""
        if step.kind == "RUN":
            self.run(step.text, step.user, step.folder, step.variables, pip_settings())
        elif step.kind == "WORKDIR":
            self._inside(step.folder).mkdir(parents=True, exist_ok=True)
        elif step.kind == "COPY":
            self._copy(step, context)

    def _copy(self, step: Step, context: Path) -> None:
        *sources, target = step.text.split()
        place = self._inside(os.path.join(step.folder, target))
        for source in sources:
            if (context / source).is_dir():
                shutil.copytree(context / source, place, dirs_exist_ok=True)
            else:
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy2(context / source, place)

    def _inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def pip_settings() -> dict[str, str]:
    """Return this machine's settings of pip from the environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
