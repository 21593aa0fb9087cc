"""Several trainings of one recipe: `python pipelines/seeds.py RECIPE [key.path=value ...]`, for each of the recipe's `seeds`.

Prior and decoder are trained with each seed; tables, towers, autoencoder and the held-out rows are shared. The first seed's run has
the recipe's name, the others `NAME-seed-S`. Its report then shows every measure with its interval over seeds.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from corgi.flow.output import until_closed
from corgi.report.seeds_command import main

if __name__ == "__main__":
    sys.exit(until_closed(lambda: main(sys.argv[1:])))
