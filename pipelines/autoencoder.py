"""Fit the latent space of the decoder, and write the latent of every picture: `python pipelines/autoencoder.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="autoencoder"))
