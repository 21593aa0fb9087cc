"""Embed pictures and captions with every CLIP tower of the recipe: `python pipelines/embed.py RECIPE [key.path=value ...]`.

With `embed.input=PLACE` what is stored there (tars, Parquet with pictures, a folder of pictures, vectors made elsewhere) is planned,
read and embedded in one go; without, the download stage must be done.
"""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="embed"))
