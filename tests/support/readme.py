"""The prompts of README: what its examples paint with the demo's run."""

import re
import shlex
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
_ARTICLES = ("a ", "an ", "the ")


def prompts(text: str | None = None) -> list[str]:
    """Return the captions of every example, in order and once each."""
    told = README.read_text(encoding="utf-8") if text is None else text
    found: list[str] = []
    for line in re.findall(r"^(?:python pipelines/generate\.py|corgi generate) (.*)$", told, re.MULTILINE):
        words = shlex.split(line)[1:]
        options = [index for index, word in enumerate(words) if word.startswith("--")]
        found += words[: options[0] if options else len(words)]
    found += re.findall(r"run\.generate\(\"([^\"]+)\"", told)
    return list(dict.fromkeys(found))


def named(prompt: str) -> str:
    """Return what a prompt names, without its article: "a fox" -> "fox"."""
    article = next((word for word in _ARTICLES if prompt.startswith(word)), "")
    return prompt.removeprefix(article)
