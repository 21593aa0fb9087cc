"""Fit the space the decoder paints in, and write every picture's latent: `python pipelines/autoencoder.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="autoencoder"))
