"""Is this model overfitted, what has it learned by heart, why, and what to change?

The target may be a run of heldout, any model or adapter folder, a Trainer's output folder with
several checkpoints, or only its log. Every text is read once per model; memory holds samples.
"""

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from heldout.core.discovery import build, entries_of
from heldout.core.errors import UserError
from heldout.core.facts import Facts, HistoryPoint, SetupFault
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.diagnosis import Diagnosis, Remedy
from heldout.core.run import Run
from heldout.core.verdict import Verdicts
from heldout.data.shift import word_shift
from heldout.diagnosis.causes import find_causes
from heldout.diagnosis.kind import kind_of_run
from heldout.diagnosis.remedies import remedies_for
from heldout.diagnosis.verdicts import verdicts_of
from heldout.jobs.evidence.gather import Asked, gather
from heldout.jobs.evidence.judge import ARMS, facts_of_run
from heldout.jobs.evidence.texts import DiagnosedTexts, spread, texts_of_files, texts_of_run
from heldout.jobs.evidence.trainer_logs import find_state, read_logs
from heldout.jobs.kit.clean_losses import losses_of
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.kit.target import training_device
from heldout.lm.load import LoadedModel, load_model
from heldout.lm.quiet import quiet_libraries
from heldout.lm.source import adapter_base, find_source
from heldout.probes.bias import read_lexicon
from heldout.probes.odd_rows import odd_rows

Goal = Literal["generalize", "recite", "style"]
GOALS: tuple[Goal, ...] = ("generalize", "recite", "style")
MOST_CHECKPOINTS = 8
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class _Target:
    """Where the judged model lies, with what its folder says of it."""

    model: str
    base: str | None
    facts: Facts
    run: Run | None = None
    checkpoints: list[Path] = field(default_factory=list)


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
    train, heldout: as in ``fit``; a run knows its own.
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
    if most_rows < 2:
        raise UserError(f"--rows must be 2 or more, got {most_rows}.")
    if out is not None:
        Run.refuse_occupied(Path(out))
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings)
    known = _known_probes(probes)
    progress = progress or Progress()
    if include_path and not (tasks and Path(include_path).is_dir()):
        raise UserError(
            f"--include-path {include_path}: must be a folder of tasks, and goes with --tasks."
        )
    found = _find(str(target), base, logs)
    about = replace(found.facts, goal=goal, **_checked(facts or {}))
    if not found.model:
        if train or heldout:
            raise UserError(
                f"{target} holds a log and no model: give the model's folder to measure it on "
                "texts, or leave --train and --heldout out to read the log alone."
            )
        result = _from_log(str(target), about)
    else:
        with quiet_libraries():
            result = _from_model(
                found,
                about,
                _texts(found, str(train), str(heldout), domains or {}, chosen, most_rows, progress),
                chosen,
                Asked(
                    known, generate, str(canaries), str(lexicon), tuple(tasks), str(include_path)
                ),
                progress,
            )
    settings_used = {
        "rows": most_rows,
        "generate": generate,
        "tasks": list(tasks),
        "probes": list(probes),
        "max_length": chosen.data.max_length,
        "seed": chosen.data.seed,
    }
    result = replace(result, settings=settings_used, seconds=time.monotonic() - start)
    if out is not None:
        write_diagnosis(result, Path(out))
    return result


def write_diagnosis(result: Diagnosis, folder: Path) -> None:
    """report.html and diagnosis.json in a new folder, whole or not at all."""
    from heldout.report.diagnosis_page import write_diagnosis_page

    write_page_folder(
        folder,
        "diagnosis.json",
        result.to_json(),
        lambda path: write_diagnosis_page(result, path),
    )


# The target


def _find(target: str, base: str, logs: str | Path) -> _Target:
    path = Path(target).expanduser()
    if path.is_dir() and (path / "status.json").is_file():
        return _of_run(Run.open(path), base, "best")
    if path.is_dir() and path.name in ARMS and (path.parent / "status.json").is_file():
        return _of_run(Run.open(path.parent), base, path.name)
    if path.is_file() and path.suffix == ".json":
        return _Target("", None, read_logs(path))
    state = Path(logs) if logs else (find_state(path) if path.is_dir() else None)
    facts = read_logs(state) if state is not None else Facts()
    if path.is_dir() and state is not None and not _holds_weights(path):
        return _Target("", None, facts)
    source = find_source(target)
    if source.is_adapter:
        base = base or adapter_base(source)
        facts = replace(facts, method="lora")
    checkpoints = sorted(
        (folder for folder in path.glob("checkpoint-*") if _CHECKPOINT.fullmatch(folder.name)),
        key=lambda folder: int(folder.name.split("-")[1]),
    )
    return _Target(target, base or None, facts, checkpoints=checkpoints)


def _holds_weights(path: Path) -> bool:
    patterns = ("*.safetensors", "checkpoint-*/*.safetensors", "*.bin", "*.gguf")
    return any(next(path.glob(pattern), None) is not None for pattern in patterns)


def _of_run(run: Run, base: str, condition: str) -> _Target:
    if not run.path(condition).is_dir():
        raise UserError(
            f"{run.folder} holds no {condition}/ model: its training did not get that far."
        )
    known, recipe = run.read_json("environment.json"), run.recipe
    from_scratch = bool(known.get("from_scratch"))
    return _Target(
        str(run.path(condition)),
        base or ("" if from_scratch else known["model"]) or None,
        facts_of_run(run, recipe, condition),
        run,
    )


def _texts(
    found: _Target,
    train: str,
    heldout: str,
    domains: Mapping[str, str],
    recipe: Recipe,
    most_rows: int,
    progress: Progress,
) -> DiagnosedTexts:
    if train and heldout:
        return texts_of_files(train, heldout, domains, recipe, most_rows, progress)
    if found.run is not None and not train:
        return texts_of_run(found.run, heldout, domains, recipe, most_rows)
    missing = "--train" if heldout else "--heldout" if train else "--train and --heldout"
    raise UserError(
        f"{missing}: give the rows that the model was trained on and rows that it has not seen; "
        "without the latter nothing tells learning from reciting."
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


# From a model


def _from_model(
    found: _Target,
    facts: Facts,
    texts: DiagnosedTexts,
    recipe: Recipe,
    asked: Asked,
    progress: Progress,
) -> Diagnosis:
    lexicon = read_lexicon(asked.lexicon) if asked.lexicon else {}
    judged = _load(found.model, recipe)
    base = _load(found.base, recipe) if found.base else None
    gathered = gather(judged, base, texts, recipe, asked, progress)
    evidence = gathered.evidence
    losses = dict(evidence.losses)
    history = facts.history
    if len(found.checkpoints) > 1:
        measured = _follow(found.checkpoints, texts, recipe, progress)
        losses |= measured[0]
        history = tuple(measured[1])
    facts = replace(
        facts,
        num_train_rows=facts.num_train_rows or texts.num_train_rows,
        num_heldout_groups=len({row.group for row in texts.heldout}),
        num_train_tokens=facts.num_train_tokens or _num_tokens(evidence, texts),
        parameters=facts.parameters or judged.parameters,
        trained_parameters=facts.trained_parameters or _trained(found, judged, facts),
        duplicate_share=_first(facts.duplicate_share, texts.duplicate_share),
        leak_share=_first(texts.leak_share, facts.leak_share),
        history=history,
        checks=(*gathered.checks, _leak_check(texts)),
        update_norm=facts.update_norm or gathered.update_norm,
        extra={**facts.extra, **_shift(texts, evidence)},
    )
    evidence = replace(evidence, losses=losses, facts=facts, min_effect=recipe.eval.min_effect)
    measurements: list[Measurement | NotMeasured] = []
    with progress.stage("figures", len(asked.probes)):
        for name in asked.probes:
            parameters = {"lexicon": lexicon} if name == "bias" and lexicon else {}
            measurements += build("probe", name, parameters).measure(evidence)
            progress.advance(1, name)
    return _judged(
        found.model,
        found.base,
        measurements,
        facts,
        recipe.eval.min_effect,
        recited=gathered.recited,
        samples=gathered.samples,
        reliability=gathered.reliability,
        warnings=[*texts.warnings, *gathered.warnings],
    )


def _judged(
    target: str,
    base: str | None,
    measurements: list[Measurement | NotMeasured],
    facts: Facts,
    min_effect: float,
    **more: Any,
) -> Diagnosis:
    verdict = verdicts_of(measurements, min_effect=min_effect, facts=facts)
    causes = find_causes(measurements, facts)
    excess = next(
        (
            measured.contrasts["base" if "base" in measured.contrasts else "heldout"].difference
            for measured in measurements
            if isinstance(measured, Measurement)
            and measured.name == "recital_best"
            and measured.contrasts
        ),
        None,
    )
    until = [
        point for point in facts.history if facts.epochs is None or point.epoch <= facts.epochs
    ]
    kind = kind_of_run(until, memorized_share=excess)
    verdict = Verdicts(verdict.headline, verdict.verdicts, causes)
    remedies: list[Remedy] = remedies_for(causes, facts)
    return Diagnosis(
        target,
        base,
        facts.goal,
        measurements,
        verdict,
        facts,
        remedies,
        kind=asdict(kind),
        **more,
    )


def _load(place: str, recipe: Recipe) -> LoadedModel:
    return load_model(
        place, device=training_device(), trust_remote_code=recipe.model.trust_remote_code
    )


def _follow(
    checkpoints: list[Path], texts: DiagnosedTexts, recipe: Recipe, progress: Progress
) -> tuple[dict[tuple[str, str], Any], list[HistoryPoint]]:
    """Losses of the checkpoints on both samples, the first and the last among them."""
    chosen = spread(checkpoints, MOST_CHECKPOINTS)
    losses, points = {}, []
    with progress.stage("checkpoints", len(chosen)):
        for folder in chosen:
            loaded = _load(str(folder), recipe)
            state = find_state(folder)
            step = int(folder.name.split("-")[1])
            epoch = read_logs(state).epochs if state else None
            for part, rows in (("train", texts.train), ("test", texts.heldout)):
                found = losses_of(loaded.model, loaded.tokenizer, rows, recipe)
                losses[folder.name, part] = found
            points.append(
                HistoryPoint(
                    step,
                    epoch if epoch is not None else float(step),
                    losses[folder.name, "train"].nats_per_token,
                    losses[folder.name, "test"].nats_per_token,
                )
            )
            del loaded
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            progress.advance(1, folder.name)
    return losses, points


def _shift(texts: DiagnosedTexts, evidence: Evidence) -> dict[str, float]:
    """How far the words of both samples lie apart, in bits beyond chance.

    Rows that are odd to the base model are left out, where they are the fewer: a part of garbled
    rows is no shift.
    """
    train = texts.train
    losses = [evidence.losses.get(("base", part)) for part in ("train", "test")]
    if losses[0] is not None and losses[1] is not None:
        odd = {
            int(evidence.statistics["base", "train"].row_index_D[place])
            for place in odd_rows(losses[0], losses[1]).nonzero()[0]
        }
        sound = [row for row in train if row.index not in odd]
        train = sound if len(sound) > len(odd) / 2 else train
    found = word_shift(train, texts.heldout)
    return {} if found is None else {"shift": found.beyond_chance}


def _leak_check(texts: DiagnosedTexts) -> SetupFault:
    share = texts.leak_share
    if share is None:
        return SetupFault("leak", "unknown", "The data was not compared.")
    words = f"{share:.1%} of the held-out rows stand in the training data, or nearly."
    if share > 0:
        remedy = "split again with all that is related on one side: heldout check --write-clean"
        return SetupFault("leak", "found", words, remedy, share)
    return SetupFault("leak", "absent", words, share=0.0)


def _num_tokens(evidence: Evidence, texts: DiagnosedTexts) -> int | None:
    """Scored tokens of all training rows, from those of the sample."""
    losses = evidence.losses.get(("best", "train"))
    if losses is None or not len(losses):
        return None
    return round(float(losses.num_tokens_D.mean()) * texts.num_train_rows)


def _trained(found: _Target, judged: LoadedModel, facts: Facts) -> int | None:
    """Of an adapter, its own weights; else all are taken to have been trained."""
    source = find_source(found.model)
    if not source.is_adapter:
        return judged.parameters
    from safetensors import safe_open

    assert source.path is not None
    num = 0
    for file in source.path.glob("adapter_model*.safetensors"):
        with safe_open(file, "pt") as weights:
            for key in weights.keys():  # noqa: SIM118  # no mapping
                size = 1
                for extent in weights.get_slice(key).get_shape():
                    size *= extent
                num += size
    return num or None


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


# From a log alone


def _from_log(target: str, facts: Facts) -> Diagnosis:
    reason = "only the log was given: it holds no documents, so nothing can be told of them"
    measurements: list[Measurement | NotMeasured] = [
        NotMeasured(name, reason)
        for name in ("test_nll_best", "generalization_gap_best", "recital_best", "ece_best")
    ]
    result = _judged(target, None, measurements, facts, 0.0)
    return replace(result, warnings=[*what_a_log_cannot_tell(facts)])


def what_a_log_cannot_tell(facts: Facts) -> list[str]:
    """Sentences for the reader; the first says what the log does tell."""
    seen = [point for point in facts.history if point.validation_nll is not None]
    if not seen:
        told = "The log holds no evaluation: set eval_strategy, or nothing can be told."
    else:
        best = min(seen, key=lambda point: point.validation_nll or 0.0)
        last = seen[-1]
        rise = (last.validation_nll or 0.0) - (best.validation_nll or 0.0)
        told = (
            f"By the log, the held-out loss was lowest at epoch {best.epoch:.3g} "
            f"({best.validation_nll:.4f}) and is {rise:.4f} higher at the end, epoch "
            f"{last.epoch:.3g}."
        )
    return [
        told,
        "A log cannot tell whether a difference is more than chance, what is recited, whether the "
        "validation rows leaked into training, or how the model compares with its base: give the "
        "model with --train, --heldout and --base.",
        "Its training loss was measured with dropout and penalties, so it is no measure of the "
        "gap.",
    ]
