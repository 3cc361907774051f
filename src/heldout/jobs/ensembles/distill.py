"""One model that learns from the averaged predictions of an ensemble, and how much it keeps.

An ordinary run of ``heldout fit`` with the ensemble's recipe and split, another seed and the
regularizer ``distillation``. The share kept is (one member - student) / (one member - ensemble), in
loss on the sealed test.
"""

# K members, N scored tokens, G groups

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.damage import refuse_damaged
from heldout.core.errors import Interrupted, UserError
from heldout.core.lock import alone_in
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress, told
from heldout.core.recipe import Recipe, load_recipe
from heldout.core.results.ensemble import SCHEMA, DistillResult
from heldout.core.run import Run
from heldout.core.stats import group_sums, paired_difference, ratio_estimate
from heldout.jobs.ensembles.members import member_runs, read_member, stacked_nats, unfinished
from heldout.jobs.fitting.fit import dry_run, fit, resume
from heldout.jobs.kit.dry_run import DryRun
from heldout.regularizers.distillation import Distillation
from heldout.scaling.ensemble import mixture_nats


def distill(
    ensemble: str | Path,
    *,
    out: str | Path | None = None,
    weight: float = Distillation.weight,
    temperature: float = Distillation.temperature,
    settings: Sequence[str] = (),
    trust_code: bool = False,
    progress: Progress | None = None,
) -> DistillResult:
    """Train one model on the ensemble's data, taught by its members, and measure what it keeps.

    ensemble: the folder that ``heldout ensemble`` wrote. out: the student's run folder, by default
    ``distilled`` in it; the same call goes on there. weight, temperature: of ``Distillation``.
    settings: changes of the ensemble's recipe, such as ``train.max_epochs=40``. The seed is one
    that no member had, the learning rate the members'. trust_code: run code that the members'
    recipes name, a metric of a file or a model's own; else UserError where they name any. Costs one
    fit whose every step also runs each member forward once; all members lie in memory.

    Raises UserError for what cannot work, Interrupted on Ctrl-C.
    """
    progress = told(progress)
    folder, about = _read_ensemble(ensemble, trust_code)
    recipe = _student_recipe(folder, about, weight, temperature, settings)
    place = Path(out) if out else folder / "distilled"
    with alone_in(place):
        _train_student(about, place, recipe, progress)
        student = Run.open(place)
        runs = member_runs(folder, len(about["members"]))
        _refuse_other_parts(student, runs[0])
        read = [read_member(run, progress) for run in [*runs, student]]
        result = _distill_result(
            folder, student, stacked_nats(read), read[0].group_index_N, settings
        )
        student.write_json("distill.json", result.to_json())
    return result


def dry_run_distill(
    ensemble: str | Path,
    *,
    out: str | Path | None = None,
    weight: float = Distillation.weight,
    temperature: float = Distillation.temperature,
    settings: Sequence[str] = (),
    trust_code: bool = False,
) -> DryRun:
    """What the student's run would do; nothing is written."""
    folder, about = _read_ensemble(ensemble, trust_code)
    return dry_run(
        about["model"],
        about["data"],
        recipe=_student_recipe(folder, about, weight, temperature, settings),
        from_scratch=about["from_scratch"],
        out=out or folder / "distilled",
    )


def _read_ensemble(ensemble: str | Path, trust_code: bool) -> tuple[Path, dict[str, Any]]:
    folder = Path(ensemble)
    path = folder / "ensemble.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        found = about["schema"] == SCHEMA
    except (OSError, ValueError, KeyError, TypeError):
        found = False
    if not found:
        raise UserError(
            f"{ensemble} is no finished ensemble, which has an ensemble.json: give the folder that "
            "heldout ensemble wrote."
        )
    for run in member_runs(folder, len(about["members"])):
        refuse_damaged(run)
        if not trust_code:
            run.refuse_own_code()
    return folder, about


def _student_recipe(
    folder: Path, about: dict[str, Any], weight: float, temperature: float, settings: Sequence[str]
) -> Recipe:
    """The ensemble's own, with its members as teachers."""
    for setting in settings:
        if setting.partition(".")[0].strip() == "data":
            raise UserError(
                f"--set {setting}: the student is measured on the ensemble's own split; leave "
                "data.* as it is."
            )
    first = folder / "member-0"
    rate = Run.open(first).read_json("result.json")["learning_rate"]
    runs = member_runs(folder, len(about["members"]))
    teachers = [str(run.best.resolve()) for run in runs]
    seed = (max(member["seed"] for member in about["members"]) + 1) % 2**32
    trusts = Run.open(first).recipe.model.trust_remote_code
    recipe = load_recipe(
        first / "recipe.toml",
        [
            f"train.seed={seed}",
            f"train.learning_rate={rate!r}",
            "control.fixed_epochs=0.0",
            f"regularizers.distillation.teachers={json.dumps(teachers, ensure_ascii=False)}",
            f"regularizers.distillation.weight={float(weight)!r}",
            f"regularizers.distillation.temperature={float(temperature)!r}",
            f"regularizers.distillation.trust_remote_code={str(trusts).lower()}",
            *settings,
        ],
    )
    if recipe.search.ranges:
        raise UserError(
            "The student is trained as the members were, and search.ranges compares settings: give "
            "the ranges to heldout ensemble, or settings one after the other, each with its --out."
        )
    return recipe


def _train_student(about: dict[str, Any], place: Path, recipe: Recipe, progress: Progress) -> None:
    try:
        if (place / "environment.json").exists():
            run = Run.open(place)
            if run.recipe != recipe:
                raise UserError(
                    f"{place} holds a run with another recipe: give another --out, or the settings "
                    "it was started with."
                )
            if run.status["state"] != "complete":
                resume(place, trust_code=True, progress=progress)
            return
        fit(
            about["model"],
            about["data"],
            out=place,
            recipe=recipe,
            from_scratch=about["from_scratch"],
            progress=progress,
        )
    except Interrupted:
        raise Interrupted("Stopped. The same command goes on where it was.") from None


def _refuse_other_parts(student: Run, member: Run) -> None:
    parts = [run.read_json("data.json")["sha256_parts"] for run in (student, member)]
    if parts[0] != parts[1]:
        raise UserError(
            f"{student.folder} was trained on other rows than {member.folder}: the data has "
            "changed since the ensemble was trained. Train the ensemble anew."
        )


def _distill_result(
    folder: Path, student: Run, nats_KN: np.ndarray, groups_N: np.ndarray, settings: Sequence[str]
) -> DistillResult:
    """``nats_KN``: the members' losses, then the student's."""
    num = len(nats_KN) - 1
    one_G, whole_G, student_G, tokens_G = (
        group_sums(nats_N, groups_N)
        for nats_N in (
            nats_KN[:-1].mean(axis=0),
            mixture_nats(nats_KN[:-1]),
            nats_KN[-1],
            np.ones(len(groups_N)),
        )
    )
    groups = range(len(tokens_G))
    level = ratio_estimate(student_G, tokens_G, groups)
    kept = share_kept(one_G, student_G, whole_G, tokens_G)
    measurements = (
        Measurement(
            "student",
            level.value,
            "nats per token",
            level.num_groups,
            "group",
            level.interval,
            {
                "one member": paired_difference(student_G, one_G, tokens_G, groups).as_contrast(),
                f"all {num} members": paired_difference(
                    student_G, whole_G, tokens_G, groups
                ).as_contrast(),
            },
            "one model, taught by the ensemble",
        ),
        kept,
    )
    values = student.recipe.regularizers["distillation"]
    if isinstance(kept, Measurement):
        bounds = kept.interval
        assert bounds is not None
        share = f"{kept.value:.0%} (95 %: {bounds.words('.0%')})"
        headline = (
            f"One distilled model keeps {share} of what {num} members gain over one."
            if bounds.low > 0
            else f"One distilled model does not surely keep any of what {num} members gain over "
            f"one: the share is {share}."
        )
    else:
        headline = f"The share kept is not measured: {kept.reason}."
    differ = ", ".join(["its loss", "its seed", *settings])
    return DistillResult(
        str(folder),
        str(student.folder),
        str(student.best),
        num,
        values["weight"],
        values["temperature"],
        measurements,
        headline,
        (
            "Intervals are over groups of test documents, given these members and this student: "
            "another seed of either is not in them.",
            f"The student has the members' size and recipe; {differ} differ.",
            *unfinished([student]),
        ),
    )


def share_kept(
    one_G: np.ndarray, student_G: np.ndarray, ensemble_G: np.ndarray, num_tokens_G: np.ndarray
) -> Measurement | NotMeasured:
    """(one member - student) / (one member - ensemble), from each group's summed loss.

    Paired by group. NotMeasured where the ensemble's own gain is not surely above 0, because
    then nothing is there to be kept. 1 is the ensemble, 0 one member; both may be passed.
    """
    groups = range(len(num_tokens_G))
    gain = paired_difference(one_G, ensemble_G, num_tokens_G, groups)
    if gain.interval.low <= 0:
        return NotMeasured(
            "distilled_share",
            f"the ensemble's gain over one member, {gain.value:.4f} nats per token (95 %: "
            f"{gain.interval.words('.4f')}), is not surely above 0",
        )
    found = ratio_estimate(one_G - student_G, one_G - ensemble_G, groups, signed=True)
    return Measurement(
        "distilled_share",
        found.value,
        "share of the gain",
        found.num_groups,
        "group",
        found.interval,
        note="(one member - student) / (one member - ensemble)",
    )
