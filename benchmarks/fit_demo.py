"""The demo, recorded: the embedded model on World Factbook answers, as `make demo` runs it.

python benchmarks/fit_demo.py [--folder .cache/fit_demo/run]
"""

import argparse
import time
from pathlib import Path

from record import write_record

from heldout.cli.progress import console_progress
from heldout.jobs.demo import demo


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default=time.strftime(".cache/fit_demo/%Y%m%d-%H%M%S"))
    options = parser.parse_args()
    with console_progress() as progress:
        result = demo(out=Path(options.folder), progress=progress)
    run = result.run
    found = run.read_json("result.json")
    figures = found["figures"]
    path = write_record(
        "fit_demo",
        {
            "heldout_nll_base": figures["test_nll_base"],
            "heldout_nll_fixed_epochs": figures["test_nll_fixed_epochs"],
            "heldout_nll_last": figures["test_nll_last"],
            "heldout_nll_best": figures["test_nll_best"],
            "gain_low": -figures["test_nll_best_minus_base_high"],
            "gain_over_fixed_low": -figures["test_nll_best_minus_fixed_epochs_high"],
            "recital_best": figures["recital_best"],
            "recital_last": figures["recital_last"],
            "recital_fixed_epochs": figures["recital_fixed_epochs"],
            "best_epoch": found["best_epoch"],
            "seconds": found["seconds"],
            "peak_gb": found["peak_gb"],
        },
        table=run.history() + run.history("control_history.jsonl"),
        seeds=[run.recipe.train.seed],
        data_sha256=run.read_json("data.json")["sha256_parts"]["test"],
        note=result.verdict.headline,
    )
    print(path)


if __name__ == "__main__":
    main()
