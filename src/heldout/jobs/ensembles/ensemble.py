"""Several trainings that differ in their seed alone, and what averaging their predictions gains.

Each member is an ordinary run of ``heldout fit``, on one split; the first finds the learning rate
for all. On the sealed test the probabilities of every subset of members are averaged, so that the
loss of ensembles of each size is known, and where it would end.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from heldout.core.errors import UserError
from heldout.core.files import write_text
from heldout.core.interrupt import stop_on_interrupt
from heldout.core.lock import alone_in
from heldout.core.progress import Progress, told
from heldout.core.recipe import Recipe, same_settings
from heldout.core.results.ensemble import EnsembleResult
from heldout.core.run import Run
from heldout.jobs.ensembles.figures import ensemble_result
from heldout.jobs.ensembles.members import (
    member_runs,
    read_member,
    refuse_other_data,
    train_member,
)
from heldout.jobs.fitting.fit import dry_run
from heldout.jobs.kit.chosen_recipe import recipe_for
from heldout.jobs.kit.dry_run import DryRun
from heldout.jobs.kit.given_data import DataSource, GivenData, given_data
from heldout.jobs.kit.given_model import GivenModel, ModelSource, given_model
from heldout.jobs.kit.hashes import file_sha256
from heldout.jobs.kit.page_folder import write_page_folder
from heldout.jobs.kit.places import Places
from heldout.jobs.kit.run_folder import default_folder
from heldout.jobs.kit.side_by_side import SideBySide, Task
from heldout.jobs.kit.target import Target
from heldout.lm.quiet import quiet_libraries
from heldout.report import ensemble as page

MEMBERS = 5
GIVEN = "given"  # a model and rows that were given as objects


def ensemble(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    members: int = MEMBERS,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
    progress: Progress | None = None,
) -> EnsembleResult:
    """Train ``members`` models that differ in ``train.seed``, and measure their ensembles.

    model, data, tokenizer, recipe, settings, from_scratch: as for ``heldout.fit``; objects are kept
    in the folder ``given``, since members and ``heldout.distill`` read them again. out: one folder
    with a run folder for each member, ``ensemble.json`` and ``report.html``; the same call goes on
    there, also with more members. Costs one fit for each member and one more pass over the test.

    Raises UserError for what cannot work, Interrupted on Ctrl-C.
    """
    progress = told(progress)
    with given_model(model, tokenizer) as given, given_data(data) as rows:
        target = Target.of(given.name, from_scratch)
        chosen = _chosen(members, target, recipe, settings)
        folder = Path(out) if out else _default_folder(given.shown, rows.shown)
        with alone_in(folder):
            target, source = _begun(target, given, rows, chosen, folder, members, progress)
    with alone_in(folder):
        _train_members(target, source, chosen, folder, members, progress)
        runs = member_runs(folder, members)
        refuse_other_data(runs)
        read = [read_member(run, progress) for run in runs]
        result = ensemble_result(target, source, folder, runs, read)
        # The JSON comes last: it marks the folder as done.
        write_page_folder(
            folder,
            "ensemble.json",
            result.to_json(),
            lambda path: page.write_ensemble(result, path),
        )
    return result


def _begun(
    target: Target,
    given: GivenModel,
    rows: GivenData,
    chosen: Recipe,
    folder: Path,
    members: int,
    progress: Progress,
) -> tuple[Target, str]:
    """What members are trained from, which stays; the folder is begun, or known to be of it."""
    place = folder / GIVEN
    source = str(Path(rows.path).resolve()) if Path(rows.path).exists() else rows.path
    lasting = replace(target, model=str((place / "model").resolve())) if given.object else target
    named = str((place / Path(source).name).resolve()) if rows.argument else source
    made_with = {**asdict(lasting), "data": named, "recipe": chosen.to_toml()}
    if given.object:
        made_with["sha256_model"] = given.digest
    if rows.argument:
        made_with["sha256_data"] = _sha256(Path(rows.path))
    path = folder / "made_with.json"
    if path.exists():
        if not same_settings(json.loads(path.read_text(encoding="utf-8")), made_with):
            raise UserError(
                f"{folder} holds an ensemble of another model, data or recipe: give another --out."
            )
        return lasting, named
    shutil.rmtree(place, ignore_errors=True)  # a kill left it
    with progress.stage("data and checks"):
        plan = _plan(target, source, chosen, folder)
    if given.object or rows.argument:
        place.mkdir()
    given.kept_in(place / "model")
    rows.kept_in(place)
    write_text(path, json.dumps(made_with, ensure_ascii=False, indent=2) + "\n")
    Places.kept_in(folder, lambda: Places.plan(chosen, members - 1, plan.needs))
    return lasting, named


def _sha256(path: Path) -> str | dict[str, str]:
    """Of a file, or of each file of a folder."""
    if path.is_file():
        return file_sha256(path)
    return {file.name: file_sha256(file) for file in sorted(path.iterdir())}


def _train_members(
    target: Target, data: str, recipe: Recipe, folder: Path, members: int, progress: Progress
) -> None:
    """The first, whose searches are for all, and then the others side by side."""

    def task(number: int) -> Task:
        arguments = {
            "target": asdict(target),
            "data": data,
            "folder": str(folder.resolve()),
            "number": number,
            "recipe": recipe.to_toml(),
        }
        return Task(f"member {number + 1} of {members}", train_member, arguments)

    first = task(0)
    places = Places.kept_in(folder, lambda: Places.of_environment({}))
    counted = progress.beside("members")
    with stop_on_interrupt() as request, counted.stage("members", members):
        first.function(progress, request, **first.arguments)
        counted.advance()
        logs = folder / "logs"
        with SideBySide(places, progress, request, logs, on_done=counted.advance) as beside:
            beside.add(*map(task, range(1, members)))


def dry_run_ensemble(
    model: ModelSource,
    data: DataSource,
    *,
    tokenizer: Any = None,
    members: int = MEMBERS,
    out: str | Path | None = None,
    recipe: str | Path | Recipe = "default",
    settings: Sequence[str] = (),
    from_scratch: str = "",
) -> DryRun:
    """What each member's run would do; nothing is written."""
    with given_model(model, tokenizer) as given, given_data(data) as rows:
        folder = Path(out) if out else _default_folder(given.shown, rows.shown)
        Run.refuse_occupied(folder)
        target = Target.of(given.name, from_scratch)
        plan = _plan(target, rows.path, _chosen(members, target, recipe, settings), folder)
        return given.renamed(rows.renamed(plan))


def _chosen(
    members: int, target: Target, recipe: str | Path | Recipe, settings: Sequence[str]
) -> Recipe:
    if members < 2:
        raise UserError(
            f"--members must be 2 or more, got {members}: one model is what heldout fit trains."
        )
    with quiet_libraries():
        return recipe_for(target, recipe, settings)


def _default_folder(model: str, data: str) -> Path:
    folder = default_folder(model, data)
    return folder.with_name(folder.name + "-ensemble")


def _plan(target: Target, data: str, recipe: Recipe, folder: Path) -> DryRun:
    plan = dry_run(target.model, data, recipe=recipe, from_scratch=target.from_scratch, out=folder)
    if plan.mode != "split" or not plan.rows["test"]:
        raise UserError(
            "An ensemble is measured on a sealed test part, and there is none "
            f"({plan.groups['train']} groups of training rows): give more rows, name a file with "
            "data.test, or set data.test_share above 0."
        )
    return plan
