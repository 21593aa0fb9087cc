"""Cut the list into identities, splits and shards: `python pipelines/plan.py RECIPE [key.path=value ...]`."""

import sys

import full

if __name__ == "__main__":
    sys.exit(full.main(only="plan"))
