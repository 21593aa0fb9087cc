"""Train the recipe's own CLIP heads: `python pipelines/tower.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="tower"))
