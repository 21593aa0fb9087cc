"""The image's steps, executed: the versions of the lock, a user who is not root, no secret, and the size."""

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.chroot import Chroot
from tests.support.dockerfile import Step, steps
from tests.support.hosts import CHECKOUT, copy_checkout

DOCKERFILE = CHECKOUT / "cluster" / "Dockerfile"
FILES_WITH_SECRETS = (
    "auth_token",
    ".netrc",
    "id_rsa",
    "id_ed25519",
    ".git-credentials",
    "credentials",
    ".pypirc",
)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Chroot, Step]]:
    """Return the folder after every step, and the last step."""
    folder = tmp_path_factory.mktemp("image")
    context = copy_checkout(folder / "context")
    made, last = Chroot(folder / "root"), None
    for step in steps(DOCKERFILE):
        made.follow(step, context)
        last = step
    assert last is not None
    yield made, last
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lines: str) -> dict[str, str]:
    return {
        normal(name): version
        for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", lines, re.MULTILINE)
    }


@pytest.mark.flow
@pytest.mark.timeout(1200)
def test_the_steps_make_what_the_image_promises(
    image: tuple[Chroot, Step], promise: Callable[[int, str], None]
) -> None:
    made, last = image
    lock = pinned((CHECKOUT / "requirements.lock").read_text())
    installed = pinned(made.run("python -m pip freeze", last.user, variables=last.variables))
    others = {name: version for name, version in installed.items() if lock.get(name) != version}
    assert others.keys() <= {"pip", "corgi"}, others
    assert {"ray", "torch", "deepspeed", "pillow"} <= installed.keys()
    assert made.run("id -un", last.user).strip() == "corgi"
    assert made.run("id -u", last.user).strip() not in ("", "0")
    told = made.run("bash -lc 'ray --version'", last.user, variables=last.variables)
    assert lock["ray"] in told
    assert "token" in made.run("echo $RAY_AUTH_MODE", last.user, variables=last.variables)
    assert secrets(made.root) == []
    assert (made.root / "home/corgi/.ray").stat().st_mode & 0o777 == 0o700
    size = int(made.run("du -s --one-file-system --block-size=1M /").split()[0])
    promise(
        31,
        f"image: {len(installed)} packages as the lock has them, user corgi, no file with a secret, {size / 1024:.1f} GiB",
    )


def secrets(root: Path) -> list[str]:
    """Return files by whose name a secret would be kept, and files that hold this machine's settings of pip."""
    named = [
        str(path)
        for name in FILES_WITH_SECRETS
        for place in ("home", "root", "opt")
        for path in (root / place).rglob(name)
    ]
    return [*named, *(str(path) for path in (root / "root").rglob("pip.conf"))]
