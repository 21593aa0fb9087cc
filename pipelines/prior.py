"""Train the prior: caption -> CLIP image embedding: `python pipelines/prior.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="prior"))
