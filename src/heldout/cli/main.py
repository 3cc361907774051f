"""The command line: parse, call a job, print. Jobs are imported only when they run."""

import errno
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from heldout.cli.advise import advise
from heldout.cli.capacity import capacity
from heldout.cli.check import check
from heldout.cli.compress import compress
from heldout.cli.counterfactual import counterfactual
from heldout.cli.diagnose import diagnose
from heldout.cli.distill import distill
from heldout.cli.ensemble import ensemble
from heldout.cli.hyperfit import hyperfit
from heldout.cli.recipe import recipe
from heldout.core.errors import Interrupted, UserError, did_you_mean

app = typer.Typer(
    name="heldout",
    help="Train and fine-tune causal language models on little data without overfitting, and "
    "prove it with a report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any field of the recipe; may be repeated."),
]


@app.command()
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
            "--data", "-d", help="jsonl, json, csv, parquet, txt, a folder of these, or a Hub id."
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(help="Run folder; default runs/<time>-<data>-<model>.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="A ready recipe (see `heldout list`) or a .toml file.")
    ] = "default",
    settings: SetOption = None,
    from_scratch: Annotated[
        str,
        typer.Option(
            metavar="CONFIG", help="Start from a config.json; --model then names the tokenizer."
        ),
    ] = "",
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="The embedded model on the embedded data.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the plan, write nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model, keep the best checkpoint, and write the report that proves it."""
    if dry_run and (demo or resume is not None):
        raise UserError("--dry-run goes with --model and --data, not with --demo or --resume.")
    if resume is not None and (out is not None or from_scratch or recipe != "default"):
        raise UserError("--resume goes on with the run as it is: leave out --out and --recipe.")
    if demo and (model or data or resume or from_scratch or recipe != "default"):
        raise UserError("--demo brings its own model, data and recipe: leave the others out.")
    if resume is None and not demo and not (model and data):
        raise UserError(
            "fit needs --model and --data, or --resume RUN, or --demo. Try `heldout fit --help`."
        )
    if resume is not None and (model or data or settings):
        raise UserError(
            "--resume goes on with the settings in the run folder: leave out --model, --data and "
            "--set, or start a new run."
        )
    from heldout.cli.progress import console_progress
    from heldout.jobs import fit as job

    if dry_run:
        plan = job.dry_run(
            model, data, recipe=recipe, settings=settings or [], from_scratch=from_scratch, out=out
        )
        from heldout.cli.show import show_plan

        show_plan(plan, as_json)
        return
    with console_progress() as progress:
        if demo:
            from heldout.jobs.demo import demo as demo_job

            result = demo_job(out=out, settings=tuple(settings or ()), progress=progress)
        elif resume is not None:
            result = job.resume(resume, progress=progress)
        else:
            result = job.fit(
                model,
                data,
                out=out,
                recipe=recipe,
                settings=settings or [],
                from_scratch=from_scratch,
                progress=progress,
            )
    from heldout.cli.show import show_result

    show_result(result.run, result.verdict, as_json)
    if demo and not as_json:
        print(
            "\nOpen the report in a browser. Then try your own rows:\n"
            "  heldout fit --model MODEL --data train.jsonl --dry-run\n"
            "  heldout fit --model MODEL --data train.jsonl"
        )


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default report.html in the run folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run again, or put several runs side by side."""
    from heldout.jobs.report import write_report as job

    written = job(runs, out=out)
    if as_json:
        print(json.dumps({"schema": "heldout.report/1", "report": str(written)}))
    else:
        print(written)


plan_app = typer.Typer(
    help="Before training: what more parameters, tokens and epochs would bring.",
    no_args_is_help=True,
)
app.add_typer(plan_app, name="plan")


@plan_app.command("laws")
def plan_laws(
    runs: Annotated[Path, typer.Argument(metavar="RUNS.csv", help="One finished run a line.")],
    law: Annotated[
        str, typer.Option(help="A law of `heldout list law`; default: the best forecaster.")
    ] = "",
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=COLUMN",
            help="Map N, D, U, epochs, C, loss, group or tokenizer, as D=tokens_b*1e9.",
        ),
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep these rows only.")
    ] = None,
    parameters: Annotated[
        str, typer.Option(help="How N was counted: total or non-embedding.")
    ] = "",
    loss_unit: Annotated[str, typer.Option(help="nats-per-token or bits-per-byte.")] = "",
    uniform_loss: Annotated[
        float | None,
        typer.Option(
            help="Loss of a uniform guess, ln(vocabulary) in nats; for laws that saturate."
        ),
    ] = None,
    axis: Annotated[
        list[str] | None,
        typer.Option(help="Direction of the forecast: compute, unique or epochs; default all."),
    ] = None,
    delta: Annotated[float, typer.Option(help="Of the Huber loss of log residuals.")] = 1e-3,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write laws.json and report.html here.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Fit scaling laws to finished runs, choose one by its forecasts, and say what is unknown."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.planning.fitted_law import AXES, OwnRuns
    from heldout.jobs.planning.laws import laws as job

    with console_progress() as progress:
        result = job(
            OwnRuns(runs, column or [], where or [], parameters, loss_unit, uniform_loss),
            law=law,
            axes=axis or tuple(AXES),
            delta=delta,
            out=out,
            progress=progress,
        )
    from heldout.cli.show import show_laws

    show_laws(result.to_json(), as_json)


plan_app.command()(advise)
plan_app.command()(capacity)
plan_app.command()(compress)


@app.command("list")
def list_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[KIND|NAME]",
            help="regularizer, augmentation, probe, law or recipe, or the name of one; empty: all.",
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Every regularizer, augmentation, probe, law and recipe, with its cost and its source."""
    from heldout.cli.show import show_card, show_entries
    from heldout.core.discovery import ROOMS, list_entries

    kinds = [*ROOMS, "recipe"]
    entries = list_entries()
    found = [entry for entry in entries if what in ("", entry.kind, entry.name)]
    if what and what not in (*kinds, *(entry.name for entry in entries)):
        names = [*kinds, *(entry.name for entry in entries)]
        raise UserError(f"list: {what!r} is no kind and no name{did_you_mean(what, names)}")
    if what and what not in kinds and not as_json:
        for entry in found:
            show_card(entry)
        return
    show_entries(found, as_json)


app.command()(check)
app.command()(diagnose)
app.command()(counterfactual)
app.command()(hyperfit)
app.command()(ensemble)
app.command()(distill)
app.command("recipe")(recipe)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"heldout {installed('heldout')}")
        raise typer.Exit


def main() -> None:
    """Entry point: 0 done, 1 interrupted or a gate failed, 2 bad input in one clear line."""
    try:
        sys.exit(app(standalone_mode=False) or 0)
    except UserError as error:
        _fail(str(error), 2)
    except Interrupted as stopped:
        resume = "Stopped. What there is has been kept; go on with `heldout fit --resume RUN`."
        _fail(str(stopped) or resume, 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("Stopped at once. If a run had begun, `--resume` goes on from its checkpoint.", 1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _fail(f"The disk is full{_at(error)}: free some space, then `--resume` the run.", 2)
        if error.filename and error.strerror:
            _fail(f"Cannot read or write{_at(error)}: {error.strerror}.", 2)
        raise
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own: an unknown option, say
            if error.format_message():
                _fail(f"{error.format_message()} Try `heldout --help`.", 2)
            sys.exit(2)
        if "No space left on device" in str(error) or "File too large" in str(error):
            _fail("The disk is full: free some space, then `--resume` the run.", 2)
        raise


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _fail(message: str, code: int) -> None:
    print(f"heldout: {message}", file=sys.stderr)
    sys.exit(code)
