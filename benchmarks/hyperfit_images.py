"""The record of experiments/hyperfit_images: half images completed before and after hyperfitting.

    python benchmarks/hyperfit_images.py [--seeds 0 1 2]

Trains what is not in .cache yet: a few minutes on one core.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments" / "hyperfit_images"))

import run
from record import write_record

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    seeds = parser.parse_args().seeds
    figures, table, digest = run.record(seeds)
    print(write_record("hyperfit_images", figures, table=table, seeds=seeds, data_sha256=digest))
