"""COCO's FID of a run: `python pipelines/coco.py RUN --annotations FILE --images FOLDER --inception FILE --out ROOT`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.evaluation.coco_command import main
from corgi.flow.output import until_closed

if __name__ == "__main__":
    sys.exit(until_closed(main))
