"""Is this model overfitted, what has it learned by heart, why, and what to change?

The target may be a run of heldout, any model or adapter folder, a Trainer's output folder with
several checkpoints, or only its log. Every text is read once per model; memory holds samples.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from heldout.core.discovery import entries_of
from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.diagnosis import Diagnosis
from heldout.core.run import Run
from heldout.data.layout import holds_split
from heldout.jobs.diagnosing.find_target import DiagnosedTarget, find_target
from heldout.jobs.diagnosing.from_log import diagnosis_of_log
from heldout.jobs.diagnosing.from_model import diagnosis_of_model
from heldout.jobs.evidence.gatherer import Asked
from heldout.jobs.evidence.texts import DiagnosedTexts, texts_of_files, texts_of_run
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.lm.quiet import quiet_libraries
from heldout.report.diagnosis_page import write_diagnosis_page

Goal = Literal["generalize", "recite", "style"]
GOALS: tuple[Goal, ...] = ("generalize", "recite", "style")


@dataclass(frozen=True)
class TextSources:
    """Where the texts come from, each empty where it is not given; a run has its own."""

    train: str
    heldout: str
    domains: Mapping[str, str]
    most_rows: int


def diagnose(
    target: str | Path,
    *,
    train: str | Path = "",
    heldout: str | Path = "",
    base: str = "",
    logs: str | Path = "",
    goal: Goal = "generalize",
    domains: Mapping[str, str] | None = None,
    canaries: str | Path = "",
    lexicon: str | Path = "",
    tasks: Sequence[str] = (),
    include_path: str | Path = "",
    facts: Mapping[str, Any] | None = None,
    probes: Sequence[str] = (),
    generate: bool = True,
    most_rows: int = 400,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Measure ``target`` on rows it was trained on and rows it has not seen, and say what it has.

    target: run folder, ``last`` or ``fixed_epochs`` inside of one, model or adapter folder,
    Trainer output folder, or ``trainer_state.json`` alone, which is judged by its log.
    train, heldout: as in ``fit``; a run knows its own, and a folder with a split that is ready
    needs no ``heldout``.
    base: the model that training began with; an adapter and a run name theirs. It is the control
    of most figures; what needs it is not measured without.
    logs: ``trainer_state.json``, where it does not lie with the model.
    domains: name to file, of text that the model should not have become worse on.
    canaries: the file that ``heldout check --plant-canaries`` wrote.
    tasks: names of tasks of the lm-evaluation-harness, which must be installed; ``include_path``
    is a folder with task files of your own.
    facts: what else is known of the training, by field of ``Facts``, such as ``epochs`` or
    ``weight_decay``.
    probes: names, to measure nothing else; ``generate`` False leaves all generation out.
    most_rows: rows of each part that are read at most.
    out: a new folder for report.html and diagnosis.json.

    Cost: per model one forward pass over each sample, and the generation of 64 continuations.
    Raises UserError before anything is written for what cannot be measured at all.
    """
    start = time.monotonic()
    if goal not in GOALS:
        raise UserError(f"--goal must be one of {', '.join(GOALS)}, got {goal!r}.")
    sources = TextSources(str(train), str(heldout), domains or {}, most_rows)
    if most_rows < 2:
        raise UserError(f"--rows must be 2 or more, got {most_rows}.")
    if out is not None:
        Run.refuse_occupied(Path(out))
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    files = (str(canaries), str(lexicon))
    asked = Asked(_known_probes(probes), generate, *files, tuple(tasks), str(include_path))
    _refuse_folder_alone(asked)
    found = find_target(str(target), base, logs)
    known = replace(found.facts, goal=goal, **_checked(facts or {}))
    if found.model:
        result = _of_model(found, known, sources, chosen, asked, progress or Progress())
    else:
        _refuse_texts(str(target), sources)
        result = diagnosis_of_log(str(target), known)
    used = {
        "rows": most_rows,
        "generate": generate,
        "tasks": list(tasks),
        "probes": list(probes),
        "max_length": chosen.data.max_length,
        "seed": chosen.data.seed,
    }
    result = replace(result, settings=used, seconds=time.monotonic() - start)
    if out is not None:
        write_diagnosis(result, Path(out))
    return result


def write_diagnosis(result: Diagnosis, folder: Path) -> None:
    """report.html and diagnosis.json in a new folder, whole or not at all."""
    write_page_folder(
        folder,
        "diagnosis.json",
        result.to_json(),
        lambda path: write_diagnosis_page(result, path),
    )


def _of_model(
    found: DiagnosedTarget,
    known: Facts,
    sources: TextSources,
    recipe: Recipe,
    asked: Asked,
    progress: Progress,
) -> Diagnosis:
    with quiet_libraries():
        texts = _texts(found.run, sources, recipe, progress)
        return diagnosis_of_model(found, known, texts, recipe, asked, progress)


def _texts(
    run: Run | None, sources: TextSources, recipe: Recipe, progress: Progress
) -> DiagnosedTexts:
    train, heldout = sources.train, sources.heldout
    domains, most = sources.domains, sources.most_rows
    if train and (heldout or holds_split(train, recipe.data)):
        return texts_of_files(train, heldout, domains, recipe, most, progress)
    if run is not None and not train:
        return texts_of_run(run, heldout, domains, recipe, most)
    missing = "--train" if heldout else "--heldout" if train else "--train and --heldout"
    raise UserError(
        f"{missing}: give the rows that the model was trained on and rows that it has not seen; "
        "without the latter nothing tells learning from reciting."
    )


def _refuse_texts(target: str, sources: TextSources) -> None:
    if sources.train or sources.heldout:
        raise UserError(
            f"{target} holds a log and no model: give the model's folder to measure it on "
            "texts, or leave --train and --heldout out to read the log alone."
        )


def _refuse_folder_alone(asked: Asked) -> None:
    folder = asked.include_path
    if folder and not (asked.tasks and Path(folder).is_dir()):
        raise UserError(
            f"--include-path {folder}: must be a folder of tasks, and goes with --tasks."
        )


def _checked(facts: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(facts) - set(Facts.__dataclass_fields__)
    if unknown:
        raise UserError(
            f"--known {sorted(unknown)[0]}: no such fact; there are "
            f"{', '.join(sorted(Facts.__dataclass_fields__))}."
        )
    return dict(facts)


def _known_probes(names: Sequence[str]) -> list[str]:
    known = [entry.name for entry in entries_of("probe")]
    for name in names:
        if name not in known:
            raise UserError(f"--probe {name}: no such probe; there are {', '.join(known)}.")
    return [name for name in known if not names or name in names]
