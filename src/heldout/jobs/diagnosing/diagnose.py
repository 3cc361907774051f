"""Is this model overfitted, what has it learned by heart, why, and what to change?

The target may be a run of heldout, any model or adapter folder, a Trainer's output folder with
several checkpoints, or only its log. Every text is read once per model; memory holds samples.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

from heldout.core.discovery import entries_of
from heldout.core.errors import UserError
from heldout.core.facts import Facts
from heldout.core.progress import Progress, told
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.recipe_fields import convert
from heldout.core.results.diagnosis import Diagnosis
from heldout.core.run import Run
from heldout.jobs.diagnosing.from_log import diagnosis_of_log
from heldout.jobs.diagnosing.text_sources import TextSources
from heldout.jobs.diagnosing.trainer_logs import log_alone, read_logs
from heldout.jobs.kit.given_data import DataSource, given_data
from heldout.jobs.kit.given_model import ModelSource, given_model
from heldout.jobs.kit.page_folder import write_page_folder

Goal = Literal["generalize", "recite", "style"]
GOALS: tuple[Goal, ...] = ("generalize", "recite", "style")


def diagnose(
    target: ModelSource,
    *,
    tokenizer: Any = None,
    train: DataSource = "",
    heldout: DataSource = "",
    base: ModelSource = "",
    logs: str | Path = "",
    evaluation: str = "",
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
    open_test: bool = False,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Diagnosis:
    """Measure ``target`` on rows it was trained on and rows it has not seen, and say what it has.

    target: run folder, ``last`` or ``fixed_epochs`` inside of one, model or adapter folder,
    Trainer output folder, or the log of a training alone, of any tool that ``log_formats`` reads.
    train, heldout: as in ``fit``; a run knows its own, and a folder with a split that is ready
    needs no ``heldout``.
    base: the model that training began with; an adapter and a run name theirs. It is the control
    of most figures; what needs it is not measured without.
    logs: the log of the training, where it does not lie with the model.
    evaluation: NAME of ``eval_NAME_loss`` in the log, where it holds several.
    domains: name to file, of text that the model should not have become worse on.
    canaries: the file that ``heldout check --plant-canaries`` wrote.
    tasks: names of tasks of the lm-evaluation-harness, which must be installed; ``include_path``
    is a folder with task files of your own.
    facts: what else is known of the training, by field of ``Facts``, such as ``epochs`` or
    ``weight_decay``.
    probes: names, to measure nothing else; ``generate`` False leaves all generation out.
    most_rows: rows of each part that are read at most.
    open_test: open the sealed test of a run that can still be resumed, which is refused else.
    out: a new folder for report.html and diagnosis.json.

    Cost: per model one forward pass over each sample, and the generation of 64 continuations.
    Raises UserError before anything is written for what cannot be measured at all.
    """
    start = time.monotonic()
    if goal not in GOALS:
        raise UserError(f"--goal must be one of {', '.join(GOALS)}, got {goal!r}.")
    if most_rows < 2:
        raise UserError(f"--most-rows must be 2 or more, got {most_rows}.")
    if out is not None:
        Run.refuse_occupied(Path(out))
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    if include_path and not (tasks and Path(include_path).is_dir()):
        raise UserError(
            f"--include-path {include_path}: must be a folder of tasks, and goes with --tasks."
        )
    if probes:
        _known_probes(probes)
    more = {"goal": goal, **_checked(facts or {})}
    with ExitStack() as given:
        model = given.enter_context(given_model(target, tokenizer))
        control = given.enter_context(given_model(base, None if _is_name(base) else tokenizer))
        rows = [
            given.enter_context(given_data(each, name))
            for name, each in (("train", train), ("heldout", heldout))
        ]
        sources = TextSources(rows[0].path, rows[1].path, domains or {}, most_rows, open_test)
        if (alone := log_alone(Path(model.name).expanduser())) is not None:
            _refuse_texts(model.name, sources)
            log = read_logs(alone, evaluation, more.get("total_epochs") or more.get("epochs"))
            result = diagnosis_of_log(model.name, log, replace(log.facts, **more))
        else:
            # Models need torch, whose import takes seconds; a log does not.
            from heldout.jobs.diagnosing.find_target import find_target
            from heldout.jobs.diagnosing.with_texts import diagnosis_with_texts
            from heldout.jobs.evidence.gatherer import Asked
            from heldout.jobs.evidence.gatherers.canaries import read_canaries
            from heldout.probes.bias import read_lexicon

            found = find_target(model.name, control.name, logs, evaluation)
            files = (str(canaries), str(lexicon))
            for file, read in zip(files, (read_canaries, read_lexicon), strict=True):
                if file:
                    read(file)  # refused before the sealed test is opened
            asked = Asked(_known_probes(probes), generate, *files, tuple(tasks), str(include_path))
            known = replace(found.facts, **more)
            result = diagnosis_with_texts(found, known, sources, chosen, asked, told(progress))
        result = control.renamed(model.renamed(result))
        for each in rows:
            result = each.renamed(result)
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


def _is_name(model: Any) -> bool:
    return isinstance(model, str | Path)


def write_diagnosis(result: Diagnosis, folder: Path) -> None:
    """report.html and diagnosis.json in a new folder, whole or not at all."""
    from heldout.report.diagnosis_page import write_diagnosis_page  # only a folder has a page

    write_page_folder(
        folder,
        "diagnosis.json",
        result.to_json(),
        lambda path: write_diagnosis_page(result, path),
    )


def _refuse_texts(target: str, sources: TextSources) -> None:
    if sources.train or sources.heldout:
        raise UserError(
            f"{target} holds a log and no model: give the model's folder to measure it on "
            "texts, or leave --train and --heldout out to read the log alone."
        )


def _checked(facts: Mapping[str, Any]) -> dict[str, Any]:
    unknown = set(facts) - set(Facts.__dataclass_fields__)
    if unknown:
        raise UserError(
            f"--fact {sorted(unknown)[0]}: no such fact; there are "
            f"{', '.join(sorted(Facts.__dataclass_fields__))}."
        )
    hints = get_type_hints(Facts)
    return {
        name: value
        if isinstance(value, tuple)  # of a library, such as a history
        else convert(value, hints[name], f"--fact {name}")
        for name, value in facts.items()
    }


def _known_probes(names: Sequence[str]) -> list[str]:
    known = [entry.name for entry in entries_of("probe")]
    for name in names:
        if name not in known:
            raise UserError(f"--probe {name}: no such probe; there are {', '.join(known)}.")
    return [name for name in known if not names or name in names]
