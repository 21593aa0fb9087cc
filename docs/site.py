"""The source of the docs site: README, docs and what lies beside them, copied to build/docs with their links rewritten.

`make docs` runs it, then the generator. Standard library only: the generator's environment has nothing else.
"""

import re
import shutil
from pathlib import Path, PurePosixPath

HOME = Path(__file__).resolve().parents[1]
TARGET = HOME / "build" / "docs"
NAMED = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "cluster/README.md": "cluster.md",
}
"""Pages outside docs/, and their names in the site."""
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_IMAGE = re.compile(r'(<img[^>]* src=")([^"]+)(")')
_DECISIONS = "decisions/index.md"


def pages() -> dict[str, str]:
    """Return the path in the site of each page, by its path in the repository."""
    inside = [path.relative_to(HOME).as_posix() for path in sorted((HOME / "docs").rglob("*.md"))]
    return {**NAMED, **{path: path.removeprefix("docs/") for path in inside}}


def rewritten(text: str, page: str) -> str:
    """Return a page's text with links to pages and images of the site; a link to any other file becomes its text."""
    known = pages()

    def link(found: re.Match[str]) -> str:
        mark, label, target = found.groups()
        if "://" in target or target.startswith("#"):
            return found.group()
        path, _, anchor = target.partition("#")
        place = _place(path, page, known)
        if place is None:
            return label
        return f"{mark}[{label}]({place}{'#' if anchor else ''}{anchor})"

    def image(found: re.Match[str]) -> str:
        return f"{found[1]}{_place(found[2], page, known) or found[2]}{found[3]}"

    return _IMAGE.sub(image, _LINK.sub(link, text))


def _place(path: str, page: str, known: dict[str, str]) -> str | None:
    """Return where a link of a page leads in the site, relative to the page; None if it leads to no page or image."""
    file = (HOME / page).parent / path
    inside = file.resolve().relative_to(HOME).as_posix()
    if inside == "docs/decisions":
        target = _DECISIONS
    elif inside in known:
        target = known[inside]
    elif inside.startswith("docs/images/"):
        target = inside.removeprefix("docs/")
    elif (file / "README.md").is_file():
        target = known[f"{inside}/README.md"]
    else:
        return None
    up = len(PurePosixPath(known[page]).parts) - 1
    return "../" * up + target


def decisions() -> str:
    """Return the page that lists the decisions by their headings."""
    lines = ["# Decisions", ""]
    for path in sorted((HOME / "docs" / "decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write build/docs anew."""
    shutil.rmtree(TARGET, ignore_errors=True)
    for page, place in pages().items():
        file = TARGET / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rewritten((HOME / page).read_text(encoding="utf-8"), page), encoding="utf-8")
    (TARGET / _DECISIONS).write_text(decisions(), encoding="utf-8")
    shutil.copytree(HOME / "docs" / "images", TARGET / "images")


if __name__ == "__main__":
    main()
