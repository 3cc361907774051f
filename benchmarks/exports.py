"""Exported recipes in the packages they are written for: parsed, and their rows read, by those.

Every ready recipe x kind of rows (text, prompt with completion, conversation) x trainer is written
by ``heldout recipe`` and given to the trainer's own code, each in an environment of its own:

- axolotl: ``axolotl.cli.config.load_cfg`` (its validation), then ``load_datasets``
- llama-factory: ``llamafactory.hparams.get_train_args``, then ``get_dataset``
- mlx: its command's defaults and schedule, then ``load_dataset``; where ``iters`` are to be filled
  in, 4 are
- trl: the script is run up to the trainer it makes
- unsloth: a folder with its source, of whose signatures every argument of the script must be one

Criteria, set before the recorded run:

- ``accepted`` = 1: the share that is parsed with every value arriving as it was written.
- ``rows_alike`` = 1 for axolotl, llama-factory and trl: the share of (kind, trainer) whose tokens
  and scored tokens are those of heldout, row by row; ``mlx_rows_alike`` told beside it, since it
  puts a template around completions and scores the last answer alone, which its export says.
- ``rateless_trained`` = 0: of exports without a learning rate, how many begin to train.
- ``silent_drops`` = 0: keys of a recipe, and parameters of a regularizer, whose other values change
  nothing in an export and are not named in it (as tests/jobs/exporting/test_no_key_is_lost.py).
- ``first_step_difference`` <= 1e-5 nats/token: validation loss after one step by TRL's script less
  that of heldout's own training, the largest of three kinds of rows with all weights and LoRA,
  noise off; ``user_turns_difference``, told beside it: the same of conversations without
  ``assistant_only_loss``, which must be over 1e-3.

    python benchmarks/exports.py axolotl=PYTHON llama-factory=PYTHON mlx=PYTHON unsloth=FOLDER \\
        --record
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from exports_read import KINDS, normal, read_by_trl, read_by_unsloth


def rows_of(kind: str, num: int = 8, first: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number in range(first, first + num):
        asked, answer = f"What is {number} and {number}?", f"It is {2 * number}, and no more."
        turns = [asked, answer, "Are you sure?", f"Quite, it is {2 * number}."]
        roles = ("user", "assistant", "user", "assistant")
        messages = [{"role": r, "content": c} for r, c in zip(roles, turns, strict=True)]
        rows: dict[str, dict[str, Any]] = {
            "text": {"text": f"{asked}\n{answer}"},
            "completion": {"prompt": f"{asked}\n", "completion": answer},
            "conversation": {"messages": messages},
        }
        found.append(rows[kind])
    return found


def write_rows(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, first in (("train", 0), ("validation", 50), ("test", 70)):
        lines = (json.dumps(row) + "\n" for row in rows_of(kind, first=first))
        (folder / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8")


# Written by heldout


def run_of(folder: Path, kind: str, method: str = "full", *settings: str) -> Path:
    """A run of one step, from which rows and settings are exported."""
    import heldout

    write_rows(folder / "rows", kind)
    rows = folder / "rows"
    heldout.fit(
        "package:heldout",
        str(rows / "train.jsonl"),
        out=folder / "run",
        recipe="lora",
        settings=[
            f"data.validation={rows / 'validation.jsonl'}",
            f"data.test={rows / 'test.jsonl'}",
            "train.learning_rate=1e-3",
            "train.max_epochs=1",
            "train.warmup_steps=0",
            "train.precision=float32",
            "train.micro_batch_size=4",
            f"model.method={method}",
            "eval.num_samples=0",
            "eval.per_epoch=1",
            "regularizers.dropout=false",
            "regularizers.early_stopping=false",
            *settings,
        ],
    )
    return folder / "run"


def write_exports(folder: Path, trainer: str, runs: dict[str, Path]) -> None:
    """``KIND/NAME.yaml`` or ``.py``, the rows of a run beside them, and heldout's own tokens."""
    from heldout import export_recipe
    from heldout.core.recipe import recipe_names
    from heldout.core.row import Row
    from heldout.jobs.exporting.export_recipe import write_export
    from heldout.lm.load import load_tokenizer
    from heldout.lm.source import find_source
    from heldout.lm.tokenize import tokenize_rows

    model = str(Path(find_source("package:heldout").path).resolve())
    tokenizer = load_tokenizer("package:heldout")
    for kind in KINDS:
        place = folder / kind
        write_export(runs[kind], trainer, place)
        ending = "py" if trainer in ("trl", "unsloth") else "yaml"
        (place / f"train.{ending}").rename(place / f"a_run.{ending}")
        for name in recipe_names():
            text = export_recipe(name, trainer, kind).replace("'MODEL'", repr(model))
            text = text.replace(": MODEL\n", f": {model}\n")
            (place / f"{name}.{ending}").write_text(text, encoding="utf-8")
        lines = (runs[kind] / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [Row.from_json(json.loads(line)) for line in lines]
        cut = [each for _, each in tokenize_rows(rows, tokenizer, 512)]
        tokens = [normal(one.input_ids, one.labels) for each in cut for one in each.windows]
        (place / "tokens.json").write_text(json.dumps(sorted(tokens)), encoding="utf-8")


# The first step


def first_step_difference(folder: Path, kind: str, method: str, *, drop: str = "") -> float:
    """Nats/token on the validation rows after one step: by TRL's script less heldout's own."""
    from heldout.core.row import Row
    from heldout.jobs.exporting.export_recipe import write_export
    from heldout.lm.load import load_model
    from heldout.lm.nll import document_losses

    run = run_of(folder, kind, method)
    out = folder / "export"
    write_export(run, "trl", out)
    script = (out / "train.py").read_text(encoding="utf-8")
    if drop:
        assert drop in script
    os.chdir(out)
    exec(compile(script.replace(drop, ""), "trl", "exec"), {})
    lines = (run / "data" / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [Row.from_json(json.loads(line)) for line in lines]
    found = []
    for place in (run / "last", out / "out"):
        loaded = load_model(str(place), device="cpu")
        losses = document_losses(loaded.model, rows, loaded.tokenizer, max_length=512, batch_size=4)
        found.append(losses.nats_per_token)
    return abs(found[1] - found[0])


def silent_drops() -> int:
    """By the tests' own enumeration of keys and parameters."""
    tests = Path(__file__).parents[1] / "tests" / "jobs" / "exporting"
    sys.path.insert(0, str(tests))
    from test_no_key_is_lost import lost_keys, lost_parameters  # type: ignore[import-not-found]

    from heldout.jobs.exporting.export_recipe import TRAINERS

    return sum(len(lost_keys(t)) + len(lost_parameters(t)) for t in TRAINERS)


def asked(trainer: str, python: str, folder: Path) -> dict[str, Any]:
    """This file by another interpreter, without the network."""
    quiet = {"HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}
    quiet["PYTHONPATH"] = ""
    command = [python, str(Path(__file__).with_name("exports_read.py")), trainer, str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **quiet}
    )
    if done.returncode:
        sys.exit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(given: dict[str, str], *, record: bool) -> None:
    import trl
    from record import write_record

    table: list[dict[str, Any]] = []
    versions = [f"trl: trl {trl.__version__}"]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        runs = {kind: run_of(root / "runs" / kind, kind) for kind in KINDS}
        for trainer in ("trl", *given):
            folder = root / trainer
            write_exports(folder, trainer, runs)
            if trainer == "trl":
                table += read_by_trl(folder)
            elif trainer == "unsloth":
                table += read_by_unsloth(folder, Path(given[trainer]))
                versions.append(f"unsloth: source of {Path(given[trainer]).name}")
            else:
                found = asked(trainer, given[trainer], folder)
                table += found["rows"]
                versions.append(f"{trainer}: {found['versions']}")
        steps = {
            f"{kind} {method}": first_step_difference(root / f"{kind}-{method}", kind, method)
            for kind in KINDS
            for method in ("full", "lora")
        }
        all_turns = first_step_difference(
            root / "all-turns", "conversation", "full", drop="    assistant_only_loss=True,\n"
        )
    exports = [row for row in table if "kind" in row]
    alike = [row for row in exports if "rows_alike" in row]
    others = [row["rows_alike"] for row in alike if row["trainer"] != "mlx"]
    on_mlx = [row["rows_alike"] for row in alike if row["trainer"] == "mlx"]
    figures: dict[str, float] = {
        "num": len(exports),
        "accepted": sum(not row["refused"] and not row["ignored"] for row in exports)
        / len(exports),
        "rows_alike": sum(others) / len(others),
        "rateless_trained": sum(row.get("trained", False) for row in table),
        "silent_drops": silent_drops(),
        "first_step_difference": max(steps.values()),
        "user_turns_difference": all_turns,
    }
    if on_mlx:
        figures["mlx_rows_alike"] = sum(on_mlx) / len(on_mlx)
    for row in table:
        if (
            row.get("refused")
            or row.get("ignored")
            or "said" in row
            or not row.get("rows_alike", 1)
        ):
            print(json.dumps(row))
    print(json.dumps({**figures, "steps": steps}, indent=1))
    command = "python benchmarks/exports.py " + " ".join(f"{t}=..." for t in given)
    note = "; ".join([*versions, f"first steps: {json.dumps(steps)}"])
    if record:
        print(
            write_record(
                *("exports", figures), table=table, seeds=[0], data_sha256="",
                command=command, note=note,
            )
        )  # fmt: skip


if __name__ == "__main__":
    named = [one for one in sys.argv[1:] if one != "--record"]
    main(dict(one.split("=", 1) for one in named), record="--record" in sys.argv)
