"""Which code made a table: a digest of the sources, and git's commit where there is one."""

import hashlib
import subprocess
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]


@cache
def code_digest() -> str:
    """Return a digest of every Python file under corgi/ and pipelines/."""
    total = hashlib.blake2b(digest_size=16)
    for folder in ("corgi", "pipelines"):
        for path in sorted((HOME / folder).rglob("*.py")):
            total.update(str(path.relative_to(HOME)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


@cache
def git_commit() -> str | None:
    """Return the checked-out commit, marked if files differ from it; None outside a clone."""
    if not (HOME / ".git").exists():
        return None
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=HOME, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=HOME,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with local changes" if dirty else commit


@cache
def commit_of(code: str | None) -> str | None:
    """Return the newest of a clone's last 500 commits whose sources have this digest; None when there is none."""
    if code is None or not (HOME / ".git").exists():
        return None
    try:
        commits = _git("log", "-n", "500", "--format=%H").decode().split()
        return next((commit for commit in commits if _digest_at(commit) == code), None)
    except (OSError, subprocess.SubprocessError):
        return None


def _digest_at(commit: str) -> str:
    """Return `code_digest` as it was at a commit."""
    names = _git("ls-tree", "-r", "--name-only", "-z", commit, "corgi", "pipelines").decode().split("\0")
    chosen = [name for name in names if name.endswith(".py")]
    asked = "".join(f"{commit}:{name}\n" for name in chosen)
    answer = _git("cat-file", "--batch", given=asked.encode())
    texts: dict[str, bytes] = {}
    offset = 0
    for name in chosen:
        line_end = answer.index(b"\n", offset)
        size = int(answer[offset:line_end].split()[-1])
        texts[name] = answer[line_end + 1 : line_end + 1 + size]
        offset = line_end + 2 + size
    total = hashlib.blake2b(digest_size=16)
    for folder in ("corgi", "pipelines"):
        for name in sorted((n for n in chosen if n.startswith(f"{folder}/")), key=lambda n: Path(n).parts):
            total.update(name.encode() + b"\0" + texts[name] + b"\0")
    return total.hexdigest()


def _git(*arguments: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=HOME, input=given, capture_output=True, check=True, timeout=20
    )
    return done.stdout
