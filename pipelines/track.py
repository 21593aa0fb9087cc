"""Send what trainings kept offline to Weights & Biases, in order: `python pipelines/track.py FOLDER` (a run's root, or any part of it)."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError
from corgi.tracking.offline import sync_offline


def main() -> int:
    """Send every offline folder below the one named; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(), description="Send what trainings kept offline to Weights & Biases, in order."
    )
    parser.add_argument("folder", type=_folder, help="a folder such as runs, or any part of it")
    try:
        print(f"{sync_offline(parser.parse_args().folder)} offline folders sent")
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder; nothing was sent; name a folder such as runs")
    return Path(text)


if __name__ == "__main__":
    sys.exit(until_closed(main))
