"""Run folders with made-up numbers, for rendering only: nothing here was measured on a model."""

import hashlib
import json
from pathlib import Path

import numpy as np

from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Interval, Measurement, NotMeasured
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.row import Row
from heldout.core.run import Run
from heldout.core.verdict import Cause, Verdict, Verdicts

STEPS_PER_EPOCH = 40
BEST_EPOCH = 2.5
LAST_EPOCH = 5.0


def made_up_run(folder: Path, *, model: str = "HuggingFaceTB/SmolLM2-135M", shift: float = 0.0):
    """A complete run with a control and a sealed test; ``shift`` moves its kept losses."""
    run = Run.create(folder, recipe())
    _environment(run, model)
    _data(run)
    _before_training(run)
    _histories(run, shift)
    _losses_and_measurements(run, shift)
    run.write_json("verdict.json", verdict().to_json())
    run.write_json("result.json", result())
    run.write_json("samples.json", samples())
    run.write_status("complete")
    return run


def made_up_cross_validation(folder: Path) -> Run:
    """A complete run on few documents: no test part, out-of-fold losses."""
    run = Run.create(folder, recipe())
    _environment(run, "HuggingFaceTB/SmolLM2-135M")
    run.write_json(
        "data.json",
        {
            "source": "letters.jsonl",
            "sha256": "ab" * 32,
            "kind": "text",
            "mode": "cross_validation",
            "rows": {"train": 24},
            "groups": {"train": 24},
            "tokens": {"train": 18_211},
            "sha256_parts": {"train": "cd" * 32},
            "dropped": [],
            "duplicates": 0,
        },
    )
    curve = [
        {
            "epoch": epoch,
            "validation_nll": _validation(epoch),
            "low": _validation(epoch) - 0.11,
            "high": _validation(epoch) + 0.12,
        }
        for epoch in np.arange(0, 5.5, 0.5).tolist()
    ]
    run.write_json("cross_validation.json", {"folds": 5, "curve": curve, "best_epoch": BEST_EPOCH})
    base, best = _documents(24, 3.12, seed=5), _documents(24, 2.91, seed=5)
    run.save_losses("base", "out_of_fold", base)
    run.save_losses("best", "out_of_fold", best)
    measured = [
        _nll("out_of_fold_nll_base", base),
        _nll("out_of_fold_nll_best", best, {"base": best.minus(base).as_contrast()}),
    ]
    run.write_json("measurements.json", measurements(measured))
    run.write_json("verdict.json", verdict().to_json())
    run.write_json("result.json", result())
    run.write_status("complete")
    return run


def made_up_interrupted(folder: Path) -> Run:
    """A run that was stopped in its second epoch: no verdict, no measurement, a cut last line."""
    run = Run.create(folder, recipe())
    _environment(run, "HuggingFaceTB/SmolLM2-135M")
    _data(run)
    for entry in history(0.0)[:4]:
        run.append_history(entry)
    with run.path("history.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 80, "epo')
    run.write_status("interrupted", message="Stopped by the user.")
    return run


def recipe() -> Recipe:
    return load_recipe(
        "default",
        ["control.fixed_epochs=5", "data.group=country", "model.lora_rank=16", "train.seed=7"],
    )


def verdict() -> Verdicts:
    return Verdicts(
        "Better than the base model on text it has never seen: the loss fell by 0.31 nats per "
        "token (95 % interval 0.29 to 0.34), perplexity from 22.6 to 16.5. It peaked at epoch "
        "2.5; stopping there kept 0.11 nats that longer training would have lost.",
        {
            "fit": Verdict(
                "green",
                "Loss on the sealed test is 0.31 nats per token lower than the base model's, and "
                "the interval excludes zero.",
                ("test_nll_best",),
            ),
            "quality": Verdict("unknown", "No task metric was named (eval.metric)."),
            "generation": Verdict(
                "green",
                "Less surprising to the base model than what people wrote, by 0.41 nats per token.",
                ("generated_nll_best",),
            ),
            "memorization": Verdict(
                "yellow",
                "Training rows gained 0.18 nats per token more than unseen ones.",
                ("generalization_gap_best",),
            ),
            "forgetting": Verdict(
                "red", "Loss on general text rose by 0.21 nats per token.", ("general_nll_best",)
            ),
            "leakage": Verdict(
                "green", "No test row is an exact or near duplicate of a training row.", ()
            ),
            "confidence": Verdict("unknown", "Calibration was not measured."),
        },
        (
            Cause(
                "too_many_epochs",
                0.7,
                (
                    "Validation rose after epoch 2.5.",
                    "The training loss kept falling.",
                ),
                ("The learning rate was searched.",),
                "Train again with train.max_epochs = 3 and compare on the validation part.",
            ),
        ),
    )


def result() -> dict:
    return {
        "schema": "heldout.result/1",
        "best_step": 100,
        "best_epoch": BEST_EPOCH,
        "last_step": 200,
        "last_epoch": LAST_EPOCH,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "stop_reason": "no new low of the validation loss in 3 evaluations",
        "learning_rate": 3e-4,
        "method": "lora",
        "trained_parameters": 4_884_480,
        "parameters": 139_400_064,
        "seconds": 431.7,
        "seconds_training": 352.1,
        "peak_gb": 2.84,
        "figures": {"heldout_nll_base": 3.118, "heldout_nll_best": 2.804},
    }


def samples() -> list[dict]:
    return [
        {
            "prompt": "Country: Norway\nQuestion: What are the main exports?",
            "reference": "petroleum and petroleum products, machinery and equipment, metals, "
            "chemicals, ships, fish",
            "base": "\n\nThe main exports of Norway are the main exports of Norway are the main "
            "exports of Norway are the main exports of Norway are the main exports of Norway",
            "best": "petroleum and petroleum products, fish, metals, machinery, ships",
            "last": "petroleum and petroleum products, fish, metals, machinery, ships",
        },
        {
            "prompt": "Country: Chad\nQuestion: Which languages are spoken?",
            "reference": "French (official), Arabic (official), Sara (in south), more than 120 "
            "different languages and dialects",
            "base": "",
            "best": "French (official), Arabic (official), more than 100 local languages",
            "last": "French (official), Arabic, Portuguese-based Crioulo 44%, Wolof 12%",
        },
    ]


def history(shift: float) -> list[dict]:
    """Validation falls to epoch 2.5 and rises after; the training loss keeps falling."""
    entries = []
    for epoch in np.arange(0, LAST_EPOCH + 0.25, 0.5).tolist():
        nll = _validation(epoch) + shift * min(epoch, BEST_EPOCH) / BEST_EPOCH
        entries.append(
            {
                "step": round(epoch * STEPS_PER_EPOCH),
                "epoch": epoch,
                "validation_nll": nll,
                "validation_low": nll - 0.07,
                "validation_high": nll + 0.075,
                "train_nll": 3.1 - 1.05 * (1 - np.exp(-epoch / 2.2)),
                "training_loss": None if epoch == 0 else 3.16 - 0.2 * epoch,
                "learning_rate": 3e-4,
                "is_best": epoch <= BEST_EPOCH,
                "change_low": None if epoch == 0 else -0.08,
                "change_high": None if epoch == 0 else -0.03,
            }
        )
    return entries


def measurements(entries: list) -> dict:
    return {
        "schema": "heldout.measurements/1",
        "measurements": [entry.to_json() for entry in entries],
    }


def _validation(epoch: float) -> float:
    return 3.12 - 0.34 * (1 - np.exp(-epoch)) + 0.045 * max(0.0, epoch - BEST_EPOCH) ** 1.2


def _environment(run: Run, model: str) -> None:
    run.write_json(
        "environment.json",
        {
            "versions": {"heldout": "0.1.0", "torch": "2.9.0", "transformers": "5.0.0"},
            "hardware": "2 CPU cores, 8 GB",
            "platform": "Linux",
            "device": "cpu",
            "precision": "float32",
            "threads": 2,
            "command": "heldout fit --model HuggingFaceTB/SmolLM2-135M --data factbook.jsonl",
            "model": model,
        },
    )


def _data(run: Run) -> None:
    rows = {"train": 412, "validation": 88, "test": 240}
    hashes = {}
    for part in ("train", "validation", "test"):
        message = {"role": "text", "content": f"A made-up row of the {part} part."}
        run.write_rows(part, [Row(0, (message,), f"{part}-0")])
        text = run.path(f"data/{part}.jsonl").read_bytes()
        hashes[part] = hashlib.sha256(text).hexdigest()
    run.write_json(
        "data.json",
        {
            "source": "factbook.jsonl",
            "sha256": "9f" * 32,
            "kind": "completion",
            "mode": "split",
            "rows": rows,
            "groups": {"train": 161, "validation": 34, "test": 62},
            "tokens": {"train": 31_944, "validation": 6_801, "test": 18_530},
            "sha256_parts": hashes,
            "dropped": [{"reason": "empty completion", "count": 3}],
            "duplicates": 11,
        },
    )


def _before_training(run: Run) -> None:
    run.write_json(
        "checks.json",
        [
            {"name": "loss_mask", "status": "ok", "message": "31,944 tokens are scored."},
            {"name": "end_of_text", "status": "ok", "message": "Every row ends with it."},
            {
                "name": "truncation",
                "status": "warning",
                "message": "9 rows are longer than data.max_length and become several windows.",
            },
        ],
    )
    run.write_json(
        "search.json",
        {
            "trials": [
                {"learning_rate": 1e-4, "validation_nll": 2.97, "steps": 40, "diverged": False},
                {"learning_rate": 3e-4, "validation_nll": 2.86, "steps": 40, "diverged": False},
                {"learning_rate": 1e-3, "validation_nll": 2.93, "steps": 40, "diverged": False},
                {"learning_rate": 3e-3, "validation_nll": None, "steps": 12, "diverged": True},
            ],
            "chosen": 3e-4,
        },
    )
    run.write_json("tuning.json", tuning())


def tuning() -> dict:
    """The certificate of a search over epochs and decay, one neighbor of which diverged."""
    compared = [
        ("train.max_epochs", 2.5, 0.031, (0.012, 0.05)),
        ("train.max_epochs", 10.0, 0.004, (-0.006, 0.015)),
        ("regularizers.weight_decay.rate", 0.2, 0.02, (0.004, 0.037)),
    ]
    neighbors = [
        {
            "coordinate": key,
            "value": value,
            "loss": 2.86 + difference,
            "difference": difference,
            "interval": {"low": low, "high": high},
            "verdict": "worse" if low > 0 else "not surely better",
        }
        for key, value, difference, (low, high) in compared
    ]
    empty = dict.fromkeys(("loss", "difference", "interval"))
    last = {"coordinate": "regularizers.weight_decay.rate", "value": 0.8, "verdict": "diverged"}
    return {
        "schema": "heldout.tuning/1",
        "chosen": {"train.max_epochs": 5.0, "regularizers.weight_decay.rate": 0.4},
        "loss": 2.86,
        "is_certified": True,
        "sentence": "Certified after 7 points: none of the 4 neighbors is surely better.",
        "edges": [],
        "neighbors": [*neighbors, {**last, **empty}],
        "trials": [],
        "grids": {},
    }


def _histories(run: Run, shift: float) -> None:
    for entry in history(shift):
        run.append_history(entry)
    control = [
        {
            **entry,
            "validation_nll": entry["validation_nll"] + 0.06 * entry["epoch"] ** 1.3,
            "train_nll": 3.1 - 2.0 * (1 - np.exp(-entry["epoch"] / 2.2)),
        }
        for entry in history(shift)
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in control)
    run.write_text("control_history.jsonl", lines)


def _documents(num: int, nll: float, *, seed: int, spread: float = 0.35) -> DocumentLosses:
    """``num`` documents around ``nll`` nats/token; equal seeds give the same documents."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(20, 160, num)
    level = rng.normal(0, spread, num)
    noise = np.random.default_rng(round(nll * 1000)).normal(0, 0.12, num)
    return DocumentLosses(
        np.maximum(nll + level + noise, 0.05) * tokens,
        tokens,
        tokens * 4,
        np.array([f"country {index // 4}" for index in range(num)]),
    )


def _nll(name: str, losses: DocumentLosses, contrasts: dict | None = None) -> Measurement:
    estimate = losses.estimate()
    return Measurement(
        name,
        estimate.value,
        "nats/token",
        estimate.num_groups,
        "document",
        estimate.interval,
        contrasts or {},
    )


def _losses_and_measurements(run: Run, shift: float) -> None:
    test = {
        "base": _documents(240, 3.118, seed=1),
        "best": _documents(240, 2.804 + shift, seed=1),
        "last": _documents(240, 2.914, seed=1),
        "fixed_epochs": _documents(240, 3.26, seed=1),
    }
    train = {"base": _documents(200, 3.1, seed=2), "best": _documents(200, 2.61, seed=2)}
    for model, losses in test.items():
        run.save_losses(model, "test", losses)
    for model, losses in train.items():
        run.save_losses(model, "train", losses)
    contrasts = {
        control: test["best"].minus(test[control]).as_contrast()
        for control in ("base", "last", "fixed_epochs")
    }
    entries = [
        _nll("test_nll_base", test["base"]),
        _nll("test_nll_best", test["best"], contrasts),
        *(
            _nll(
                f"test_nll_{model}",
                test[model],
                {"base": test[model].minus(test["base"]).as_contrast()},
            )
            for model in ("last", "fixed_epochs")
        ),
        Measurement(
            "test_bits_per_byte_best", 1.011, "bits/byte", 60, "document", Interval(0.99, 1.03)
        ),
        *(
            Measurement(
                f"generalization_gap_{model}",
                gap,
                "nats/token",
                60,
                "document",
                Interval(gap - 0.08, gap + 0.08),
            )
            for model, gap in (("base", 0.02), ("best", 0.194), ("last", 0.55))
        ),
        NotMeasured("metric_best", "No task metric was named: set eval.metric."),
    ]
    run.write_json("measurements.json", measurements(entries))
    for purpose in ("final evaluation of base, best, last and fixed_epochs",):
        list(run.open_test(purpose))
