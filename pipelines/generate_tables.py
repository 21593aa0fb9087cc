"""A file of captions to Parquet tables of pictures, through Ray: `python pipelines/generate_tables.py runs/openmoji captions.parquet --out painted`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import until_closed
from corgi.inference.bulk_command import main

if __name__ == "__main__":
    sys.exit(until_closed(main))
