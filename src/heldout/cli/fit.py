"""``heldout fit``: parse, call the job, print."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from heldout.cli import completing
from heldout.core.errors import UserError


@dataclass(frozen=True)
class NewRun:
    """What a run is started with, by the names of ``heldout.fit``."""

    model: str
    data: str
    out: Path | None
    recipe: str
    settings: list[str]
    from_scratch: str


def fit(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Folder, Hub id, adapter folder, checkpoint-N, GGUF file, or package:NAME.",
        ),
    ] = "",
    data: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            help="jsonl, json, csv, parquet, txt, also packed; a folder of these, which may hold a "
            "split; or a Hub id.",
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/<time>-<data>-<model>.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing.recipes,
            help="A ready recipe (see `heldout list`) or a .toml file; default is full for models "
            "of under 20 million parameters, lora for larger ones.",
        ),
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Any field of the recipe; may be repeated.",
        ),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="N", help="Plan all of it within so many: as --set train.max_minutes=N."
        ),
    ] = None,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker",
            metavar="NAME",
            autocompletion=completing.trackers,
            help="Also tell tensorboard, trackio, wandb or mlflow; may be repeated: as --set "
            "train.report_to=NAME.",
        ),
    ] = None,
    learn_chosen: Annotated[
        bool,
        typer.Option("--learn-chosen", help="Of preference data, the good answers alone."),
    ] = False,
    from_scratch: Annotated[
        str,
        typer.Option(
            metavar="CONFIG", help="Start from a config.json; --model then names the tokenizer."
        ),
    ] = "",
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    end_search: Annotated[
        bool,
        typer.Option(
            "--end-search", help="With --resume: try no more settings, take the best so far."
        ),
    ] = False,
    trust_code: Annotated[
        bool,
        typer.Option(
            "--trust-code",
            help="With --resume: run code that the run's recipe names, a metric or a model's own.",
        ),
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="The embedded model on the embedded data.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fine-tune a model, keep the best checkpoint, and write the report that proves it."""
    settings = [*(settings or ()), *(["data.learn_chosen=true"] if learn_chosen else ())]
    if minutes is not None:
        if not minutes > 0:
            raise UserError(f"--minutes must be above 0, got {minutes:g}.")
        settings.append(f"train.max_minutes={minutes}")
    if trackers:
        settings.append(f"train.report_to={json.dumps(trackers)}")
    new = NewRun(model, data, out, recipe, settings, from_scratch)
    _refuse_mixed(new, resume, demo, dry_run)
    if end_search and resume is None:
        raise UserError("--end-search goes with --resume RUN, whose search it ends.")
    from heldout.cli.resumed import refuse_unfit_run

    refuse_unfit_run(resume, trust_code)
    from heldout.cli.progress import console_progress
    from heldout.cli.show import show_plan, show_result
    from heldout.jobs.fitting import fit as job

    if dry_run:
        show_plan(job.dry_run(**asdict(new)), as_json)
        return
    with console_progress() as progress:
        if demo:
            from heldout.jobs.demo import demo as demo_job

            result = demo_job(out=out, settings=tuple(new.settings), progress=progress)
        elif resume is not None:
            result = job.resume(
                resume, end_search=end_search, trust_code=trust_code, progress=progress
            )
        else:
            result = job.fit(**asdict(new), progress=progress)
    show_result(result.run, result.verdict, as_json)
    if demo and not as_json:
        print(
            "\nOpen the report in a browser. Then try your own rows:\n"
            "  heldout fit --model MODEL --data train.jsonl --dry-run\n"
            "  heldout fit --model MODEL --data train.jsonl"
        )


def _refuse_mixed(new: NewRun, resume: Path | None, demo: bool, dry_run: bool) -> None:
    """A run is new, gone on with, or the demo; only a new one can be tried dry."""
    other_start = bool(new.from_scratch) or new.recipe != "default"
    if dry_run and (demo or resume is not None):
        raise UserError("--dry-run goes with --model and --data, not with --demo or --resume.")
    if resume is not None and (new.out is not None or other_start):
        raise UserError("--resume goes on with the run as it is: leave out --out and --recipe.")
    if demo and (new.model or new.data or resume or other_start):
        raise UserError("--demo brings its own model, data and recipe: leave the others out.")
    if resume is None and not demo and not (new.model and new.data):
        raise UserError(
            "fit needs --model and --data, or --resume RUN, or --demo. Try `heldout fit --help`."
        )
    if resume is not None and (new.model or new.data or new.settings):
        from heldout.cli.resumed import refuse_changes

        refuse_changes(resume)
