"""How many times the data a regularized recipe, an ensemble and its student are worth.

Speeches on the State of the Union, cut into passages; a small Llama from scratch on U tokens of
them. The baseline is the same architecture unregularized, tuned for itself (epochs, learning rate,
size) at U, 2 U and 4 U. The treatments see U alone: strong weight decay, dropout, averaged weights
and text cut anew for every epoch, tuned by coordinate search with its certificate; ensembles of
such models that average probabilities, of seeds alone and of all that was trained on the way; one
model distilled from the latter. "Times the data" is where the baseline's curve through its own
three losses reaches the treatment's: never extrapolated.

    python benchmarks/data_efficiency.py --tune-baseline
    python benchmarks/data_efficiency.py --baseline-seeds
    python benchmarks/data_efficiency.py --search
    python benchmarks/data_efficiency.py --seeds
    python benchmarks/data_efficiency.py --tried
    python benchmarks/data_efficiency.py --select
    python benchmarks/data_efficiency.py --distill
    python benchmarks/data_efficiency.py --report

Everything is chosen on validation speeches; the test speeches are read by ``--report`` alone.
Every training is kept in ``.cache/data_efficiency`` and not run again; a training is a trunk at a
constant rate and a fall of the rate over its last quarter, so that trainings that differ in their
epochs alone share a trunk. One thread; the stages may run beside one another.
"""

import argparse

import torch
from times_data.held import Held
from times_data.settings import FOLDER, SEEDS, TIMES
from times_data.speeches import Data
from times_data.stages import (
    baseline,
    baseline_seeds,
    regularized,
    select,
    train_seeds,
    train_tried,
)
from times_data.students import STUDENTS, distill, read_by_student
from times_data.worth import report


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tune-baseline", type=int, nargs="*", choices=TIMES, metavar="TIMES")
    parser.add_argument("--baseline-seeds", type=int, nargs="*", choices=TIMES, metavar="TIMES")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="*", metavar="SEED")
    parser.add_argument("--tried", action="store_true")
    parser.add_argument("--select", action="store_true")
    parser.add_argument("--sample", type=int, nargs="+", metavar="PART", help="parts beforehand")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--distill", choices=list(STUDENTS), nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    data = Data()
    held = Held("validation", data)
    print({times: data.tokens(times) for times in TIMES}, len(held.groups_N), flush=True)
    if options.tune_baseline is not None:
        for times in options.tune_baseline or TIMES:
            print(baseline(times, data, held, trains=True).sentence, flush=True)
    for times in () if options.baseline_seeds is None else options.baseline_seeds or TIMES:
        baseline_seeds(times, data, held)
    if options.search:
        print(regularized(data, held, trains=True).sentence, flush=True)
    if options.seeds is not None:
        train_seeds(options.seeds or list(range(SEEDS)), data)
    if options.tried:
        train_tried(data)
    if options.select:
        select(held)
    for part in options.sample or []:
        read_by_student(part, data)
    if options.distill is not None:
        for name in options.distill or list(STUDENTS):
            distill(STUDENTS[name], data, held)
    if options.report:
        report(data, held)


if __name__ == "__main__":
    main()
