"""Fetch, decode and filter the pictures of the plan: `python pipelines/download.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="download"))
