"""A trained prior, or a whole run, as a diffusers folder: `python pipelines/export.py runs/openmoji --out FOLDER [--whole]`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import program, until_closed
from corgi.settings.errors import CorgiError


def main() -> int:
    """Write the folder and print its path; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=program(), description="Export a trained prior, or a whole run, for diffusers."
    )
    parser.add_argument("run", help="a run's folder, such as runs/openmoji")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument("--variant", help="which prior of the run (default: the first)")
    parser.add_argument(
        "--whole", action="store_true", help="prior, decoder and autoencoder: a pipeline that paints"
    )
    parser.add_argument(
        "--stock", action="store_true", help="decoder and autoencoder as diffusers' own KandinskyV22Pipeline"
    )
    arguments = parser.parse_args()
    from corgi.inference.export_prior import export_prior
    from corgi.inference.export_stock import export_stock
    from corgi.inference.export_whole import export_whole

    try:
        if arguments.stock:
            print(export_stock(arguments.run, arguments.out))
        elif arguments.whole:
            print(export_whole(arguments.run, arguments.out))
        else:
            print(export_prior(arguments.run, arguments.out, arguments.variant))
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
