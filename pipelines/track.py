"""Send what trainings kept offline to Weights & Biases, in order: `python pipelines/track.py FOLDER` (a run's root, or any part of it)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import until_closed
from corgi.settings.errors import CorgiError
from corgi.tracking.offline import sync_offline


def main(arguments: list[str]) -> int:
    """Send every offline folder below the one named; return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(
            "usage: python pipelines/track.py FOLDER; nothing was sent; name a folder such as runs",
            file=sys.stderr,
        )
        return 2
    try:
        print(f"{sync_offline(Path(arguments[0]))} offline folders sent")
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(lambda: main(sys.argv[1:])))
