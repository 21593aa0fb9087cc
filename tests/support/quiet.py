"""What a run may show: passes standard input on, and fails where a line is not one of ours or there are too many.

`make smoke 2>&1 | python tests/support/quiet.py`
"""

import re
import sys
from collections.abc import Iterable, Iterator

MOST_LINES = 60
_STAGES = "plan|download|tower|features|embed|curate|shift|pack|prior|autoencoder|autoencoder fit|latents|decoder|evaluate"
_PROGRESS = r"\d+ of \d+ (shard|step|task|picture)s(, .+)?"
_COUNTS = r"\d+ in = \d+ kept \+ \d+ rejected( \([a-z_]+ \d+(, [a-z_]+ \d+)*\))?"
_BESIDE = r"runs at the same time as later stages|follows [a-z]+, shard by shard"
OURS = tuple(
    re.compile(form)
    for form in (
        r"installing into \S+: [^\[\]]+, a few minutes; log: \S+",
        r"this takes: [^\[\]]+",
        r"disk: [^\[\]]+; Ctrl-C stops, and the same command resumes",
        r"next:",
        r"  \S+/corgi (serve|generate|new) [^\[\]]+",
        rf"\[ *\d+\.\d s\] rendering pictures: {_PROGRESS}",
        r"\d+ pictures, \d+ rendered now, \d+ rows, http://127\.0\.0\.1:\d+",
        r"Pictures, rasterised: OpenMoji [^\[\]]+",
        r"log: \S+/logs/\S+\.log",
        rf"\[ *\d+\.\d s\] [a-z0-9-]+( and \d+ after it)?: {_PROGRESS}",
        rf"\[ *\d+\.\d s\] ({_STAGES}): (runs|done before|{_BESIDE}|{_COUNTS}|{_PROGRESS})",
        r"\S+: \d+ stages ran, the rest was done before, \d+\.\d s",
        r"  \S+/(report\.html|samples/grid\.png|metrics\.json)",
    )
)


def strange(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines that no form of ours describes whole."""
    return (line for line in lines if not any(form.fullmatch(line) for form in OURS))


def main() -> int:
    """Pass the lines on and return 1 where one is strange or they are too many."""
    lines = []
    for line in sys.stdin:
        print(line, end="", flush=True)
        lines.append(line.rstrip("\n"))
    found = [f"not a line of ours: {line!r}" for line in strange(lines)]
    if len(lines) > MOST_LINES:
        found.append(f"{len(lines)} lines, {MOST_LINES} at most")
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
