"""What the tools of ``model_tools.py`` say of folders with a model and its rows.

Read by the interpreter that has the three other tools as well, so each is imported where it is
asked. An answer is kept in the folder, and a folder that has one is left out:

    PYTHON model_tools_asked.py plant BASE FILE SEED               # memaudit's canaries
    PYTHON model_tools_asked.py TOOL BASE MINUTES FOLDER ...
"""

import contextlib
import io
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

CANARIES, CONTROLS, SECRET_TOKENS = 16, 100, 25
TARGET_FPR = 0.01  # memaudit's
SETTINGS = ("data.group=group", "data.max_length=256")


def weightwatcher(folder: Path, base: Path) -> dict[str, Any]:
    """The mean of alpha over layers, and the layers called over-trained; of the base as well."""
    found, usual = _analyzed(folder / "out"), _of_base(base)
    return {
        "numbers": found,
        "alarm": found["over_trained_layers"] > usual["over_trained_layers"],
        "base": usual,
    }


def _analyzed(model: Path) -> dict[str, float]:
    import weightwatcher as ww
    from transformers import AutoModelForCausalLM

    watcher = ww.WeightWatcher(model=AutoModelForCausalLM.from_pretrained(model))
    details = watcher.analyze()
    return {
        "alpha": float(watcher.get_summary(details)["alpha"]),
        "over_trained_layers": int((details["warning"] == "over-trained").sum()),
    }


_of_base = cache(_analyzed)


def contamcheck(folder: Path, base: Path) -> dict[str, Any]:
    """Training rows beside the held-out ones; then the held-out rows beside their number twins."""
    from contamcheck.cli import main

    def tests_of(rows: str, *more: str) -> tuple[dict[str, float], bool]:
        command = [
            str(folder / "out"), str(folder / rows), "--field", "text", "--reference", str(base),
            "--json", "--batch-size", "64", *more,
        ]  # fmt: skip
        code, printed = _run(main, command)
        if code not in (0, 1):
            raise ValueError(f"contamcheck {rows}: exit code {code}")
        return {test["name"]: test["rate"] for test in json.loads(printed)["tests"]}, code == 1

    trained, alarm = tests_of("train.jsonl", "--control", str(folder / "heldout.jsonl"))
    unseen, leak = tests_of("heldout.jsonl")
    return {
        "numbers": {
            "min_k_flagged": trained["min-k"],
            "completion_flagged": trained["completion"],
        },
        "alarm": alarm,
        "leak": leak,
        "heldout_flagged": unseen,
    }


def memaudit(folder: Path, base: Path) -> dict[str, Any]:
    """Its canaries, and training rows beside held-out ones; an alarm is ours, it gives none.

    Text is generated for planted canaries alone: for its 100 controls it would take a minute.
    """
    from memaudit.cli import main

    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    planted = [canary for canary in manifest["canaries"] if canary["included"]]
    asked = {
        "canaries": (planted, []),
        "membership": (manifest["canaries"], [
            "--skip-generation", "--dataset", str(folder / "train.jsonl"),
            "--held-out", str(folder / "heldout.jsonl"),
        ]),
    }  # fmt: skip
    reports = {}
    for name, (chosen, more) in asked.items():
        held = json.dumps({**manifest, "canaries": chosen})
        (folder / "asked.json").write_text(held, encoding="utf-8")
        report = folder / f"memaudit-{name}.json"
        code, _ = _run(main, [
            "audit", "--model", str(folder / "out"), "--canary-set", str(folder / "asked.json"),
            "--ref", str(base), "--output", str(report), *more,
        ])  # fmt: skip
        if code:
            raise ValueError(f"memaudit {name}: exit code {code}")
        reports[name] = json.loads(report.read_text(encoding="utf-8"))
    recited = reports["canaries"]["regurgitation"]["overall"]["rate"]
    membership = reports["membership"]["membership"]
    rows = reports["membership"]["real_records"]["set_level"]
    return {
        "numbers": {
            "canary_auc": membership["auc"],
            "canary_tpr": membership["tpr_at_1pct_fpr"],
            "canaries_recited": recited,
            "rows_gap": rows["mean_gap"],
        },
        "alarm": membership["ci_low"] > TARGET_FPR or recited > 0,
        "rows_p": rows["p_value"],
        "canaries": membership["n_members"],
    }


def heldout(folder: Path, base: Path) -> dict[str, Any]:
    """An alarm where the light fit or memorization is red, a leak where leakage is."""
    from heldout.jobs.diagnosing.diagnose import diagnose

    result = diagnose(
        folder / "out", train=folder / "train.jsonl", heldout=folder / "heldout.jsonl",
        base=str(base), settings=SETTINGS,
    )  # fmt: skip
    lights = {name: one.color for name, one in result.verdict.verdicts.items()}
    measured = {one.name: getattr(one, "value", None) for one in result.measurements}
    loss, of_base = measured["test_nll_best"], measured["test_nll_base"]
    assert loss is not None, "the held-out loss was not measured"
    assert of_base is not None, "the base's held-out loss was not measured"
    return {
        "numbers": {"loss_above_base": loss - of_base, "recital": measured.get("recital_best")},
        "alarm": "red" in (lights["fit"], lights["memorization"]),
        "leak": lights["leakage"] == "red",
        "lights": lights,
        "causes": [cause.name for cause in result.verdict.causes],
    }


TOOLS = {
    "weightwatcher": weightwatcher,
    "contamcheck": contamcheck,
    "memaudit": memaudit,
    "heldout": heldout,
}


def answer_of(tool: str, folder: Path) -> Path:
    return folder / f"said-{tool}.json"


def ask(tool: str, base: Path, minutes: float, folders: list[Path]) -> None:
    """One folder after the other; the CPU seconds of the first hold the libraries' imports."""
    end = time.monotonic() + 60 * minutes
    for folder in folders:
        if time.monotonic() > end:
            return
        begin = time.process_time()
        try:
            found = TOOLS[tool](folder, base)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:300]}
        found["cpu_seconds"] = time.process_time() - begin
        partial = folder / "said.partial"
        partial.write_text(json.dumps(found), encoding="utf-8")
        partial.replace(answer_of(tool, folder))
        print(tool, folder.name, json.dumps(found.get("numbers", found)), flush=True)


def plant(base: str, file: Path, seed: int) -> None:
    """As memaudit's documentation has it, but fewer, each once: the rows are few as well."""
    from memaudit import generate_canaries, inject
    from transformers import AutoTokenizer

    canaries = generate_canaries(
        AutoTokenizer.from_pretrained(base), n=CANARIES, n_controls=CONTROLS, repetitions=(1,),
        secret_len=SECRET_TOKENS, seed=seed,
    )  # fmt: skip
    rows, manifest = inject([{"text": "a row"}], canaries, seed=seed)
    texts = sorted(row["text"] for row in rows if row["text"] != "a row")
    file.write_text(json.dumps({"texts": texts, "manifest": manifest}), encoding="utf-8")


def _run(main: Callable[[list[str]], int], command: list[str]) -> tuple[int, str]:
    """Exit code and what was printed, of a command's own entry point."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = main(command)
    return code, printed.getvalue()


if __name__ == "__main__":
    if sys.argv[1] == "plant":
        plant(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
    else:
        tool, base, minutes, *names = sys.argv[1:]
        ask(tool, Path(base), float(minutes), [Path(name) for name in names])
