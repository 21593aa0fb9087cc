"""Scores of a folder of pictures: `python pipelines/score.py PAINTED REAL [--inception FILE] [--judge NAME] [--run RUN]`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.evaluation.score_command import main
from corgi.flow.output import until_closed

if __name__ == "__main__":
    sys.exit(until_closed(main))
