"""Metrics of trainings, for a tracker: `python pipelines/track.py FOLDER [--tensorboard OUT]` (a run's root, or a folder below it).

Without --tensorboard, metrics that were logged offline are sent to Weights & Biases in order; with it, event files for TensorBoard
are written.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError
from corgi.tracking.offline import sync_offline
from corgi.tracking.tensorboard import write_events


def main() -> int:
    """Send every offline folder below the named one, or write event files; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(),
        description="Send metrics that trainings logged offline to Weights & Biases, in order, or write them for TensorBoard.",
    )
    parser.add_argument("folder", type=_folder, help="a folder such as runs, or a folder below it")
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="OUT",
        help="write event files for TensorBoard to OUT; send nothing",
    )
    arguments = parser.parse_args()
    if arguments.tensorboard is not None:
        print(
            f"{write_events(arguments.folder, arguments.tensorboard)} trainings written to {arguments.tensorboard}"
        )
        return 0
    try:
        print(f"{sync_offline(arguments.folder)} offline folders sent")
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} is not a folder; nothing was sent; name a folder such as runs"
        )
    return Path(text)


if __name__ == "__main__":
    sys.exit(until_closed(main))
