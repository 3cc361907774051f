"""What a run has done, read from its folder before it is removed, and the least that it takes."""

import json
import tomllib
from pathlib import Path
from typing import Any


def work_of(run: Path) -> dict[str, Any]:
    """Steps, evaluations and losses of a `fit`, or what a `check` found; {} of others."""
    if (run / "check.json").exists():
        found = _json(run / "check.json")
        repeats = {kind: set[int]() for kind in ("exact", "near", "span")}
        for pair in found["duplicates"]:
            row = pair["second"]["row"] if "second" in pair else pair["row_b"]  # the old build's
            repeats.setdefault(pair["kind"], set()).add(row)
        repeating = {f"{kind}_rows": sorted(each) for kind, each in repeats.items()}
        return {"counts": found["counts"], "rows": found["rows"], "repeating": repeating}
    if not (run / "result.json").exists():
        return {}
    result = _json(run / "result.json")
    search = _json(run / "search.json") if (run / "search.json").exists() else {"trials": []}
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    trials = [{"rate": x["learning_rate"], "steps": x["steps"]} for x in search["trials"]]
    return {
        "batch_size": recipe["train"]["batch_size"],
        "max_train_rows": recipe["eval"]["max_train_rows"],
        "max_recital_rows": recipe["eval"]["max_recital_rows"],
        "steps": result["last_step"],
        "evaluations": len(_lines(run / "history.jsonl")),
        "control_steps": max((x["step"] for x in _lines(run / "control_history.jsonl")), default=0),
        "control_evaluations": len(_lines(run / "control_history.jsonl")),
        "trials": trials,
        "learning_rate": result["learning_rate"],
        "best_step": result["best_step"],
        "test_nll_best": result["figures"]["test_nll_best"],
        "test_nll_base": result["figures"]["test_nll_base"],
    }


def floor_flops(work: dict[str, Any], counted: dict[str, Any], factor: int) -> float:
    """FLOPs of products with the weights for all tokens that the run must read, without padding.

    ``counted``: tokens and windows of each part, and the parameters that are multiplied. The
    search's winner counts once, as the first steps of the training. ``factor``: FLOPs a parameter
    takes for a trained token (6; 4 where the weights are frozen).
    """
    batch = work["batch_size"]
    train, validation, test = (counted[name] for name in ("train", "validation", "test"))
    winner = [x["steps"] for x in work["trials"] if x["rate"] == work["learning_rate"]][:1]
    steps = work["steps"] + work["control_steps"] + sum(x["steps"] for x in work["trials"])
    trained = (steps - sum(winner)) * batch * train["tokens"] / train["windows"]
    followed = min(train["windows"], work["max_train_rows"]) / train["windows"]
    tested = min(train["windows"], work["max_recital_rows"]) / train["windows"]
    evaluations = work["evaluations"] + work["control_evaluations"]
    read = evaluations * (validation["tokens"] + followed * train["tokens"])
    read += max(0, len(work["trials"]) - 1) * validation["tokens"]
    models = 4 if work["control_steps"] else 3  # base, best, last and the control's
    read += models * (test["tokens"] + tested * train["tokens"])
    return counted["multiplied_parameters"] * (factor * trained + 2 * read)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
