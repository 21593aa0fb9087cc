"""Which code made a table: a digest of the sources, and the git commit if there is one."""

import hashlib
import subprocess
from collections.abc import Iterator, Sequence
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
    """Return the newest of a clone's last 500 commits whose sources have this digest; None if there is none."""
    if not code or not (HOME / ".git").exists():
        return None
    texts: dict[str, bytes] = {}
    try:
        commits = _git("log", "-n", "500", "--format=%H").decode().split()
        return next((commit for commit in commits if _digest_at(commit, texts) == code), None)
    except (OSError, subprocess.SubprocessError):
        return None


def _digest_at(commit: str, texts: dict[str, bytes]) -> str:
    """Return the `code_digest` of a commit; `texts` caches the contents of git objects by name."""
    lines = _git("ls-tree", "-r", "-z", commit, "corgi", "pipelines").decode().split("\0")
    names = {name: line.split()[2] for line, _, name in (line.partition("\t") for line in lines) if line}
    chosen = {name: thing for name, thing in names.items() if name.endswith(".py")}
    texts.update(_texts(sorted(set(chosen.values()) - texts.keys())))
    total = hashlib.blake2b(digest_size=16)
    for folder in ("corgi", "pipelines"):
        for name in sorted((n for n in chosen if n.startswith(f"{folder}/")), key=lambda n: Path(n).parts):
            total.update(name.encode() + b"\0" + texts[chosen[name]] + b"\0")
    return total.hexdigest()


def _texts(objects: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each git object."""
    if not objects:
        return
    answer = _git("cat-file", "--batch", given="".join(f"{one}\n" for one in objects).encode())
    offset = 0
    for one in objects:
        line_end = answer.index(b"\n", offset)
        size = int(answer[offset:line_end].split()[-1])
        yield one, answer[line_end + 1 : line_end + 1 + size]
        offset = line_end + 2 + size


def _git(*arguments: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(
        ["git", *arguments], cwd=HOME, input=given, capture_output=True, check=True, timeout=20
    )
    return done.stdout
