"""Choose the rows of the whole set that are trained on: `python pipelines/curate.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="curate"))
