"""Where a run goes when the user does not say, how it begins, and how it is opened again."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from heldout.core.damage import refuse_damaged
from heldout.core.environment import environment
from heldout.core.errors import UserError
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import PreflightCheck
from heldout.jobs.kit.hashes import file_sha256
from heldout.jobs.kit.parts import Parts, write_parts
from heldout.lm.accelerator import trained_precision, training_device
from heldout.lm.fingerprint import fingerprint


def default_folder(model: str, data: str) -> Path:
    """``runs/<time>-<data>-<model>``."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{stamp}-{_short(data)}-{_short(model)}"


def start_run(
    folder: Path,
    recipe: Recipe,
    parts: Parts,
    checks: Sequence[PreflightCheck],
    plan: Mapping[str, Any] | None = None,
    *,
    openings: Sequence[Mapping[str, str]] = (),
    **about: Any,
) -> Run:
    """A new run with its rows, its checks, its plan, and the environment with ``about`` in it.

    ``openings`` are those of its test part in earlier runs.
    """
    run = Run.create(folder, recipe)
    write_parts(run, parts, recipe)
    if openings:
        lines = "".join(json.dumps(opening) + "\n" for opening in openings)
        run.write_text("data/test_openings.jsonl", lines)
    run.write_json("checks.json", [vars(check) for check in checks])
    if plan is not None:
        run.write_json("plan.json", plan)
    run.write_json(
        "environment.json",
        environment(
            **{
                "device": training_device(),
                "threads": recipe.train.threads or torch.get_num_threads(),
                "precision": trained_precision(recipe.train.precision),
                "padding": next((c.message for c in checks if c.name == "padding"), None),
                **about,
                "sha256": {
                    "model": fingerprint(about["model"]),
                    "recipe": file_sha256(run.path("recipe.toml")),
                },
            },
        ),
    )
    return run


def note_warnings(checks: Sequence[PreflightCheck], progress: Progress) -> None:
    """One line for each check that is not ok, and for what was recognized in the data."""
    for check in checks:
        if check.status == "warning":
            progress.note(f"warning: {check.name}: {check.message}")
        elif check.name == "data":
            progress.note(f"{check.name}: {check.message}")


def open_started(folder: str | Path, *, trust_code: bool) -> tuple[Run, dict[str, Any]]:
    """A run that ``start_run`` has begun, with its environment.

    Raises UserError where its recipe runs code of its own, unless ``trust_code``, and where model,
    rows or recipe of one that goes on are other than they were.
    """
    run = Run.open(Path(folder))
    if not trust_code:
        run.refuse_own_code()
    refuse_damaged(run)
    if not run.path("environment.json").exists():
        raise UserError(
            f"{folder} stopped before its data was written: give the first command again, with "
            f"--out {folder}."
        )
    if not run.path("data.json").exists():
        raise UserError(f"{run.path('data.json')} is missing: put it back, or start a new run.")
    known = run.read_json("environment.json")
    if run.status.get("state") != "complete":
        _refuse_changed(run, known)
    return run, known


def _refuse_changed(run: Run, known: dict[str, Any]) -> None:
    """UserError where what a run was begun with is no longer what it was.

    Runs of earlier versions kept no hashes of model and recipe. A search and a limit of time
    rewrite the recipe.
    """
    begun = known.get("sha256") or {}
    back = "put it back as it was, or start a new run."
    if begun.get("model") and begun["model"] != fingerprint(known["model"]):
        if known.get("object"):
            raise UserError(
                f"The model that was given is not the one that {run.folder} was started with: "
                "give that one, or start a new run."
            )
        raise UserError(
            f"The model {known['model']} has changed since {run.folder} was started: {back}"
        )
    kept = {}
    searched = any(run.path(name).exists() for name in ("tuning.json", "ablation.json"))
    if not (searched or run.recipe.train.max_minutes):
        kept["recipe.toml"] = begun.get("recipe")
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        hashes = run.read_json("data.json")["sha256_parts"]
        kept |= {f"data/{part}.jsonl": digest for part, digest in hashes.items()}
    for name, digest in kept.items():
        if digest and run.path(name).is_file() and file_sha256(run.path(name)) != digest:
            raise UserError(f"{run.path(name)} has changed since the run was started: {back}")


def existing_parent(folder: Path) -> Path:
    """The nearest folder above that exists: its disk is the one a run will fill."""
    while not folder.exists():
        folder = folder.parent
    return folder


def _short(name: str) -> str:
    stem = Path(name.rstrip("/")).stem or name
    words = "".join(c if c.isalnum() or c in "-_" else "-" for c in stem.split(":")[-1])
    return words[:40].strip("-") or tempfile.gettempprefix()
