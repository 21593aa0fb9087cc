"""Compute the clusters and scales of the image embeddings: `python pipelines/shift.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="shift"))
