"""Embed pictures and captions with every CLIP tower of the recipe: `python pipelines/embed.py RECIPE [key.path=value ...]`.

With `embed.input=PATH` the data at that path (tars, Parquet with pictures, a folder of pictures, vectors computed elsewhere) is planned,
read and embedded by this one command; without it, the download stage must be done.
"""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="embed"))
