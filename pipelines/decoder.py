"""Train the decoder: CLIP image embedding -> picture: `python pipelines/decoder.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="decoder"))
