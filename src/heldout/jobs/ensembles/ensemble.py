"""Several trainings that differ in their seed alone, and what averaging their predictions gains.

Each member is an ordinary run of ``heldout fit``, on one split; the first finds the learning rate
for all. On the sealed test the probabilities of every subset of members are averaged, so that the
loss of ensembles of each size is known, and where it would end.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from heldout.core.errors import Interrupted, UserError
from heldout.core.files import write_text
from heldout.core.losses import DocumentLosses
from heldout.core.measurement import Measurement, NotMeasured
from heldout.core.progress import Progress
from heldout.core.recipe import Recipe, load_recipe, same_settings
from heldout.core.results.ensemble import EnsembleResult, Member, ServingCost, SizeLoss
from heldout.core.run import Run
from heldout.core.stats import group_sums, paired_difference
from heldout.core.token_losses import TokenLosses
from heldout.jobs.fit import dry_run, fit, resume
from heldout.jobs.kit.dry_run import Plan
from heldout.jobs.kit.run_folder import default_folder
from heldout.jobs.kit.target import Target, training_device
from heldout.lm.load import load_model
from heldout.lm.measuring.token_nats import token_losses
from heldout.lm.quiet import quiet_libraries
from heldout.report import ensemble as page
from heldout.scaling.ensemble import (
    Asymptote,
    EnsembleLosses,
    asymptote,
    ensemble_losses,
    fitted_loss,
)

MEMBERS = 5
_CURVE_TO = 4  # times the members: how far the fitted law is drawn


def ensemble(
    model: str,
    data: str,
    *,
    members: int = MEMBERS,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
    progress: Progress | None = None,
) -> EnsembleResult:
    """Train ``members`` models that differ in ``train.seed``, and measure their ensembles.

    model, data, recipe, settings, from_scratch: as for ``heldout.fit``. out: one folder with a run
    folder for each member, ``ensemble.json`` and ``report.html``; the same call goes on there, also
    with more members. Costs one fit for each member and one more reading of the test part.

    Raises UserError for what cannot work, Interrupted on Ctrl-C.
    """
    progress = progress or Progress()
    chosen = _chosen(members, recipe, settings)
    target = Target.of(model, from_scratch)
    folder = Path(out) if out else _default_folder(model, data)
    made_with = {
        **asdict(target),
        "data": str(Path(data).resolve()) if Path(data).exists() else data,
        "recipe": chosen.to_toml(),
    }
    if (folder / "made_with.json").exists():
        kept = json.loads((folder / "made_with.json").read_text(encoding="utf-8"))
        if not same_settings(kept, made_with):
            raise UserError(
                f"{folder} holds an ensemble of another model, data or recipe: give another --out."
            )
    else:
        Run.refuse_occupied(folder)
        with progress.stage("data and checks"):
            _plan(target, made_with["data"], chosen, folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_json(folder / "made_with.json", made_with)
    with progress.stage("members", members):
        for number in range(members):
            _train_member(target, made_with["data"], folder, number, chosen, progress)
            progress.advance(1)
    runs = member_runs(folder, members)
    _refuse_other_data(runs)
    read = [read_member(run, progress) for run in runs]
    result = _result(target, made_with["data"], folder, runs, read)
    page.write_ensemble(result, folder / "report.html")
    _write_json(folder / "ensemble.json", result.to_json())  # last: it marks the folder as done
    return result


def dry_run_ensemble(
    model: str,
    data: str,
    *,
    members: int = MEMBERS,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
) -> Plan:
    """What each member's run would do; nothing is written."""
    folder = Path(out) if out else _default_folder(model, data)
    Run.refuse_occupied(folder)
    return _plan(Target.of(model, from_scratch), data, _chosen(members, recipe, settings), folder)


def member_runs(folder: Path, members: int) -> list[Run]:
    """The members' runs; UserError where one is missing or not complete."""
    runs = [Run.open(folder / _name(number)) for number in range(members)]
    for run in runs:
        if run.status["state"] != "complete":
            raise UserError(f"{run.folder} is not complete: go on with heldout ensemble --out.")
    return runs


def read_member(run: Run, progress: Progress) -> TokenLosses:
    """The kept model's losses on the sealed test, token by token; kept in the run's folder."""
    path = run.path("evaluations/best-test-tokens.npz")
    if not path.exists():
        recipe = run.recipe
        rows = run.open_test("losses of each token, for the ensemble")
        total = run.read_json("data.json")["rows"]["test"]
        with quiet_libraries(), progress.stage(f"reading the test as {run.folder.name}", total):
            loaded = load_model(
                str(run.best),
                device=training_device(),
                trust_remote_code=recipe.model.trust_remote_code,
            )
            done = 0

            def count(num_rows: int) -> None:
                nonlocal done
                progress.advance(num_rows - done)
                done = num_rows

            found = token_losses(
                loaded.model,
                rows,
                loaded.tokenizer,
                max_length=recipe.data.max_length,
                batch_size=recipe.eval.batch_size,
                progress=count,
            )
        found.save(path)
    return TokenLosses.load(path)


def stacked_nats(read: Sequence[TokenLosses]) -> np.ndarray:
    """Losses (K, N) of models that read the same tokens of the same rows."""
    for each in read:
        if not np.array_equal(each.num_tokens_D, read[0].num_tokens_D):
            raise UserError(
                "The members cut the test rows into other tokens: an ensemble needs one tokenizer "
                "and one data.max_length."
            )
    return np.stack([each.nats_N for each in read])


def _chosen(members: int, recipe: str | Path | Recipe, settings: Sequence[str]) -> Recipe:
    if members < 2:
        raise UserError(
            f"--members must be 2 or more, got {members}: one model is what heldout fit trains."
        )
    if isinstance(recipe, Recipe):
        if settings:
            raise UserError("settings go with a recipe's name or file, not with a Recipe object.")
        return recipe
    return load_recipe(recipe, settings)


def _default_folder(model: str, data: str) -> Path:
    folder = default_folder(model, data)
    return folder.with_name(folder.name + "-ensemble")


def _plan(target: Target, data: str, recipe: Recipe, folder: Path) -> Plan:
    plan = dry_run(target.model, data, recipe=recipe, from_scratch=target.from_scratch, out=folder)
    if plan.mode != "split" or not plan.rows["test"]:
        raise UserError(
            "An ensemble is measured on a sealed test part, and there is none "
            f"({plan.groups['train']} groups of training rows): give more rows, name a file with "
            "data.test, or set data.test_share above 0."
        )
    return plan


def _train_member(
    target: Target, data: str, folder: Path, number: int, recipe: Recipe, progress: Progress
) -> None:
    place = folder / _name(number)
    try:
        if (place / "environment.json").exists():
            if Run.open(place).status["state"] != "complete":
                resume(place, progress=progress)
            return
        shutil.rmtree(place, ignore_errors=True)  # killed before its data was written
        fit(
            target.model,
            data,
            out=place,
            recipe=_member_recipe(folder, number, recipe),
            from_scratch=target.from_scratch,
            progress=progress,
        )
    except Interrupted:
        raise Interrupted(
            f"Stopped. The same command with --out {folder} goes on where it was."
        ) from None


def _member_recipe(folder: Path, number: int, recipe: Recipe) -> Recipe:
    """Another seed; what the first member's searches chose, and its control arm only once."""
    if number == 0:
        return recipe
    first = Run.open(folder / _name(0))
    rate = first.read_json("result.json")["learning_rate"]
    return first.recipe.replace(
        train={"seed": (recipe.train.seed + number) % 2**32, "learning_rate": rate},
        control={"fixed_epochs": 0.0},
    )


def _refuse_other_data(runs: Sequence[Run]) -> None:
    parts = [run.read_json("data.json")["sha256_parts"] for run in runs]
    for run, of_run in zip(runs, parts, strict=True):
        if of_run != parts[0]:
            raise UserError(
                f"{run.folder} was trained on other rows than {runs[0].folder}: the data has "
                "changed meanwhile. Start the ensemble anew."
            )


def _result(
    target: Target, data: str, folder: Path, runs: Sequence[Run], read: Sequence[TokenLosses]
) -> EnsembleResult:
    losses = ensemble_losses(stacked_nats(read), read[0].group_index_N)
    num = len(runs)
    limit = asymptote(losses)
    curve: tuple[Any, ...] = ()
    if isinstance(limit, Asymptote):
        curve = tuple(fitted_loss(losses, size) for size in range(1, _CURVE_TO * num + 1))
    sizes = []
    for size in range(1, num + 1):
        level, gain = losses.estimate(size), losses.gain(size)
        sizes.append(
            SizeLoss(
                size,
                losses.num_subsets(size),
                level.value,
                level.interval,
                gain.value,
                gain.interval,
            )
        )
    members = tuple(_member(run, losses, number) for number, run in enumerate(runs))
    measurements = _measurements(runs, losses, members, limit)
    about = runs[0].read_json("data.json")
    return EnsembleResult(
        model=target.model,
        from_scratch=target.from_scratch,
        data=data,
        sha256=about["sha256"],
        num_documents=len(read[0].num_tokens_D),
        num_groups=losses.num_groups,
        num_tokens=len(read[0].nats_N),
        members=members,
        sizes=tuple(sizes),
        limit=limit if isinstance(limit, Asymptote) else None,
        curve=curve,
        measurements=tuple(measurements),
        cost=_cost(runs),
        headline=_headline(sizes[-1], limit),
        notes=(*_notes(runs[0].recipe, target, losses, limit), *unfinished(runs)),
        report=str(folder / "report.html"),
    )


def _member(run: Run, losses: EnsembleLosses, number: int) -> Member:
    level = losses.estimate_of((number,))
    kept = run.losses("best", "validation")
    assert kept is not None, "a complete run on a split has them"
    return Member(
        run.folder.name,
        run.recipe.train.seed,
        level.value,
        level.interval,
        kept.nats_per_token,
        run.read_json("result.json")["best_epoch"],
    )


def _measurements(
    runs: Sequence[Run], losses: EnsembleLosses, members: Sequence[Member], limit
) -> list[Measurement | NotMeasured]:
    num, tokens_G = losses.num_members, losses.num_tokens_G
    all_G = losses.nats_G(num)
    groups = range(losses.num_groups)
    lowest = min(range(num), key=lambda number: members[number].validation_nats_per_token)
    controls = {
        "one member": losses.nats_G(1),
        "the member of lowest validation loss": losses.nats_of((lowest,)),
    }
    base = runs[0].losses("base", "test")
    if isinstance(base, DocumentLosses):
        controls["the model before training"] = group_sums(base.nll_nats_D, base.groups_D)
    contrasts = {
        name: paired_difference(all_G, nats_G, tokens_G, groups).as_contrast()
        for name, nats_G in controls.items()
    }
    one, whole = losses.estimate(1), losses.estimate(num)
    unit = "nats per token"
    found: list[Measurement | NotMeasured] = [
        Measurement(
            "one_member",
            one.value,
            unit,
            one.num_groups,
            "group",
            one.interval,
            note=f"the mean over {num} members",
        ),
        Measurement(
            "ensemble",
            whole.value,
            unit,
            whole.num_groups,
            "group",
            whole.interval,
            contrasts,
            f"the mean of the probabilities of {num} members",
        ),
    ]
    if isinstance(limit, NotMeasured):
        return [*found, limit]
    return [
        *found,
        Measurement(
            "ensemble_limit",
            limit.limit.value,
            unit,
            losses.num_groups,
            "group and member",
            limit.limit.interval,
            note="L_inf of L(K) = L_inf + A / K: members without end",
        ),
        Measurement(
            "ensemble_remaining",
            limit.remaining,
            unit,
            losses.num_groups,
            "group and member",
            limit.remaining_interval,
            note=f"A / {num}: what more members could still gain",
        ),
    ]


def _cost(runs: Sequence[Run]) -> ServingCost:
    """LoRA members share one base; members trained whole share nothing."""
    found = runs[0].read_json("result.json")
    one, trained = found["parameters"], found["trained_parameters"]
    shared = one - trained if found["method"] == "lora" else 0
    return ServingCost(len(runs), shared + len(runs) * (one - shared), one)


def _headline(whole: SizeLoss, limit) -> str:
    bounds = whole.gain_interval
    words = (
        f"Averaging {whole.size} members lowers the test loss by {whole.gain:.3f} nats per token "
        f"(95 %: {bounds.low:.3f} to {bounds.high:.3f})"
    )
    if bounds.low <= 0:
        words = (
            f"Averaging {whole.size} members does not surely lower the test loss: by "
            f"{whole.gain:.3f} nats per token (95 %: {bounds.low:.3f} to {bounds.high:.3f})"
        )
    if isinstance(limit, NotMeasured):
        return f"{words}."
    ends = limit.limit.interval
    return (
        f"{words}; members without end would reach {limit.limit.value:.3f} "
        f"(95 %: {ends.low:.3f} to {ends.high:.3f})."
    )


def _notes(recipe: Recipe, target: Target, losses: EnsembleLosses, limit) -> list[str]:
    said = [
        "Intervals of gains and of single sizes are over groups of test documents, given these "
        "members."
    ]
    if isinstance(limit, Asymptote):
        said += [
            "The limit's interval leaves out members as well as groups, one at a time. "
            + limit.condition,
            f"The law misses the measured sizes by at most {limit.largest_miss:.4f} nats per "
            "token.",
        ]
    else:
        said.append(f"No limit is given: {limit.reason}.")
    if not target.from_scratch:
        said.append(
            "The members start from the same weights and differ in the order of the rows"
            + (" and in the start of their adapters" if recipe.model.method == "lora" else "")
            + ": they resemble each other more than members from scratch do."
        )
    if losses.num_groups < 30:
        said.append(f"{losses.num_groups} groups of test documents are few for a claim.")
    return said


def unfinished(runs: Sequence[Run]) -> list[str]:
    """A note where training ended while the held-out loss was still falling."""
    found = [run.read_json("result.json") for run in runs]
    num = sum(each["best_step"] == each["last_step"] for each in found)
    if not num:
        return []
    return [
        f"{num} of {len(runs)} trainings had their lowest held-out loss at the end: more epochs "
        "(train.max_epochs) would lower it."
    ]


def _name(number: int) -> str:
    return f"member-{number}"


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
