"""A diagnosis of a model on texts: gather, measure, conclude."""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from safetensors import safe_open

from heldout.core.discovery import build
from heldout.core.facts import Facts, SetupFault
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.probe import Evidence
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe
from heldout.core.results.diagnosis import Diagnosis
from heldout.data.frames import alike_answers, planted_rows
from heldout.data.shift import word_shift
from heldout.diagnosis.features import later_rise
from heldout.jobs.diagnosing.conclude import conclude
from heldout.jobs.diagnosing.find_target import DiagnosedTarget
from heldout.jobs.diagnosing.follow_checkpoints import follow, load
from heldout.jobs.diagnosing.keep import checkpoints_to_keep
from heldout.jobs.diagnosing.start_of_course import with_start
from heldout.jobs.evidence.gather import Gathered, gather
from heldout.jobs.evidence.gatherer import Asked
from heldout.jobs.evidence.kept import Kept
from heldout.jobs.evidence.texts import DiagnosedTexts
from heldout.lm.load import LoadedModel
from heldout.lm.source import find_source
from heldout.probes.bias import read_lexicon
from heldout.probes.odd_rows import odd_rows


def diagnosis_of_model(
    found: DiagnosedTarget,
    known: Facts,
    texts: DiagnosedTexts,
    recipe: Recipe,
    asked: Asked,
    progress: Progress,
) -> Diagnosis:
    """Measure the model, its base and its checkpoints; ``known`` are facts of the training."""
    lexicon = read_lexicon(asked.lexicon) if asked.lexicon else {}
    texts = replace(texts, prompts_meant=bool(known.trains_on_prompts))
    judged = load(found.model, recipe)
    base = load(found.base, recipe, like=judged) if found.base else None
    kept = Kept.of(found.run) if found.run else None
    gathered = gather(judged, base, texts, recipe, asked, progress, kept)
    evidence = gathered.evidence
    facts = _completed(known, found, judged, texts, gathered)
    if len(found.checkpoints) > 1:
        of_base = evidence.losses.get(("base", "test"))
        losses, history = follow(found.checkpoints, texts, recipe, progress, of_base)
        evidence = replace(evidence, losses=evidence.losses | losses)
        scores = {point.step: point.extra for point in known.history}
        measured = (replace(point, extra=scores.get(point.step, {})) for point in history)
        facts = replace(facts, history=tuple(measured))
    facts = with_start(facts, evidence.losses, was_measured=len(found.checkpoints) > 1)
    min_effect = recipe.eval.min_effect
    evidence = replace(evidence, facts=facts, min_effect=min_effect)
    measurements = _measured(asked.probes, evidence, lexicon, progress)
    concluded = conclude(found.model, found.base, measurements, facts, min_effect)
    return replace(
        concluded,
        recited=gathered.memorized,
        samples=gathered.samples,
        reliability=gathered.reliability,
        warnings=[
            *_of_log(found),
            *_to_keep(found, facts),
            *texts.warnings,
            *gathered.warnings,
            *_form_of_weights(found.model),
            *_without_a_log(concluded),
        ],
    )


def _without_a_log(concluded: Diagnosis) -> list[str]:
    """What to give where something is wrong and nothing tells how training went."""
    is_red = any(each.color == "red" for each in concluded.verdict.verdicts.values())
    if not is_red or concluded.verdict.causes or concluded.facts.history:
        return []
    return [
        "No cause is named for what is red, as no log of the training was found: name it with "
        "--logs, or say what is known, such as --fact epochs=20."
    ]


def _of_log(found: DiagnosedTarget) -> list[str]:
    """What broke in training, and what was made of its log."""
    return [*found.log.course.faults, *found.log.course.notes] if found.log else []


def _to_keep(found: DiagnosedTarget, facts: Facts) -> list[str]:
    """Which checkpoint, where those of a Trainer lie there."""
    if not found.checkpoints:
        return []
    has_risen = (later_rise({}, facts) or 0) > 0
    folder = found.checkpoints[0].parent
    return checkpoints_to_keep(facts.history, folder, found.log, has_risen=has_risen)


def _measured(
    probes: Sequence[str],
    evidence: Evidence,
    lexicon: Mapping[str, Sequence[str]],
    progress: Progress,
) -> list[Measurement | NotMeasured]:
    found: list[Measurement | NotMeasured] = []
    with progress.stage("figures", len(probes)):
        for name in probes:
            parameters = {"lexicon": lexicon} if name == "bias" and lexicon else {}
            found += build("probe", name, parameters).measure(evidence)
            progress.advance(1, name)
    return found


def _completed(
    known: Facts,
    found: DiagnosedTarget,
    judged: LoadedModel,
    texts: DiagnosedTexts,
    gathered: Gathered,
) -> Facts:
    """The facts with what model, texts and evidence tell of those that are not known."""
    evidence = gathered.evidence
    planted = planted_rows(texts.train, texts.heldout)
    return replace(
        known,
        num_train_rows=known.num_train_rows or texts.num_train_rows,
        num_heldout_groups=len({row.group for row in texts.heldout}),
        num_train_tokens=known.num_train_tokens or _num_tokens(evidence, texts),
        parameters=known.parameters or judged.parameters,
        trained_parameters=known.trained_parameters or _trained_parameters(found, judged),
        duplicate_share=_first(known.duplicate_share, _without(planted, texts)),
        leak_share=_first(texts.leak_share, known.leak_share),
        num_heldout_rows=texts.num_heldout_rows,
        checks=(*gathered.checks, _leak_check(texts)),
        update_norm=known.update_norm or gathered.update_norm,
        extra={**known.extra, **_shift(texts, evidence, planted), **_frames(texts, planted)},
    )


def _frames(texts: DiagnosedTexts, planted: frozenset[int]) -> dict[str, float]:
    """Shares of the training rows that are planted secrets, and whose answers are one text."""
    alike = alike_answers(texts.train, texts.heldout)
    found = {"planted": len(planted) / len(texts.train)}
    return found if alike is None else {**found, "alike_answers": alike}


def _without(planted: frozenset[int], texts: DiagnosedTexts) -> float | None:
    """Share of the other training rows that repeat an earlier one."""
    secrets = [row.text for row in texts.train if row.index in planted]
    if texts.duplicate_share is None or not secrets or len(secrets) == len(texts.train):
        return texts.duplicate_share
    repeated, share = (
        num / len(texts.train) for num in (len(secrets) - len(set(secrets)), len(secrets))
    )
    return max(0.0, texts.duplicate_share - repeated) / (1 - share)


def _shift(texts: DiagnosedTexts, evidence: Evidence, planted: frozenset[int]) -> dict[str, float]:
    """How far the words of both samples lie apart, in bits beyond chance, planted rows aside.

    Rows that are odd to the base model are left out, where they are the fewer: a part of garbled
    rows is no shift.
    """
    train = [row for row in texts.train if row.index not in planted]
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


def _form_of_weights(target: str) -> list[str]:
    """A warning where a schedule-free checkpoint was saved in the form that is not to be used."""
    folder = find_source(target).path
    if folder is None or not (folder / "optimizer.pt").is_file():
        return []
    try:
        state = torch.load(folder / "optimizer.pt", "cpu", weights_only=True, mmap=True)
        at_gradient = state["param_groups"][0].get("train_mode", False)
    except (pickle.UnpicklingError, RuntimeError, KeyError, IndexError, AttributeError):
        return []  # an optimizer that we do not know
    if not at_gradient:
        return []
    return [
        f"{folder.name} holds the point of the gradient, not the average that schedule-free "
        "training is about, because no evaluation came before it was saved: the figures are of "
        "that point. Call trainer.optimizer.eval() before saving."
    ]


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


def _trained_parameters(found: DiagnosedTarget, judged: LoadedModel) -> int | None:
    """Of an adapter, its own weights; else all are taken to have been trained."""
    source = find_source(found.model)
    if not source.is_adapter:
        return judged.parameters
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
