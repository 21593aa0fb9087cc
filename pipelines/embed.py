"""Embed pictures and captions with every CLIP tower of the recipe: `python pipelines/embed.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="embed"))
