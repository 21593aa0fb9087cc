"""Captions to pictures with a trained run: `python pipelines/generate.py runs/openmoji "red heart" --n 4 --seed 0 --out DIR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import until_closed
from corgi.inference.request import request_of
from corgi.settings.errors import CorgiError


def main() -> int:
    """Write PNG files and print their paths; return the exit code."""
    try:
        request = request_of(None)
        from corgi.inference.command import paint_request

        for line in paint_request(request):
            print(line)
    except CorgiError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(until_closed(main))
