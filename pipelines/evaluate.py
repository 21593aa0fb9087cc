"""Measure the trained run and paint its sample grid: `python pipelines/evaluate.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="evaluate"))
