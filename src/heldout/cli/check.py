"""``heldout check``: parse, call the job, print."""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from heldout.cli import completing
from heldout.cli.gates import GATES, failures, parse_gate, refuse_gates, write_junit
from heldout.cli.junit import refuse_unwritable
from heldout.core.language import say
from heldout.core.measurement import Measurement

if TYPE_CHECKING:
    from heldout.core.results.check import CheckResult

ASKED_FOR = ("doubtful_answers", "learning_curve")  # by an option of their own


def check(
    data: Annotated[
        str,
        typer.Argument(
            help="jsonl, json, csv, parquet, txt, also packed; a folder of these, which may hold a "
            "split; or a Hub id."
        ),
    ],
    heldout: Annotated[
        list[Path] | None,
        typer.Option(help="Rows that must not appear in DATA; may be repeated."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="An evaluation set, for contamination: a file, a folder, or a name such as gsm8k; "
            "may be repeated.",
        ),
    ] = None,
    semantic: Annotated[
        str,
        typer.Option(metavar="MODEL", help="Find leaks in other words, with a sentence encoder."),
    ] = "",
    model: Annotated[
        str, typer.Option("--model", "-m", help="Measure information, tokens and odd rows too.")
    ] = "",
    reference: Annotated[
        Path | None, typer.Option(help="Text of the model's own domain, to tell the distance to.")
    ] = None,
    model_rows: Annotated[int, typer.Option(help="Rows that the model reads at most.")] = 1000,
    cross_validate: Annotated[
        int,
        typer.Option(
            metavar="K", help="Find suspect labels with K models, each fine-tuned on other folds."
        ),
    ] = 0,
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve", help="Is more data worth it? Trains on parts of it.")
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help=f"Exit code 1 on {', '.join(GATES)}, or on more than a limit, as in 'leak>1%'; "
            "may be repeated.",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What was found as JUnit XML.")
    ] = None,
    write_clean: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write rows without duplicates, in parts without leaks."),
    ] = None,
    plant_canaries: Annotated[
        int, typer.Option(metavar="N", help="Plant N secrets in the clean copy.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html and check.json; default runs/<time>-check-DATA."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(autocompletion=completing.recipes, help="Its \\[data] section is used.")
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Such as data.group=author.",
        ),
    ] = None,
    max_listed: Annotated[
        int, typer.Option(metavar="N", help="List at most N of each kind.")
    ] = 10_000,
    learn_chosen: Annotated[
        bool,
        typer.Option("--learn-chosen", help="Of preference data, the good answers alone."),
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray for a cluster.")] = "local",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Is this data fit to train on? Duplicates, leaks, faults, personal data, size."""
    gates = [parse_gate(text) for text in fail_on or ()]
    refuse_unwritable(junit)
    settings = [*(settings or ()), *(["data.learn_chosen=true"] if learn_chosen else ())]
    from heldout.cli.progress import console_progress
    from heldout.jobs.checking.check import brings_heldout
    from heldout.jobs.checking.check import check as job

    refuse_gates(gates, bool(heldout) or brings_heldout(data), bool(against))

    folder = out or _default_folder(data)
    with console_progress() as progress:
        result = job(
            data,
            heldout=heldout or [],
            against=against or [],
            semantic=semantic,
            model=model,
            reference=reference or "",
            model_rows=model_rows,
            cross_validate=cross_validate,
            learning_curve=learning_curve,
            recipe=recipe,
            settings=settings,
            write_clean=write_clean,
            plant_canaries=plant_canaries,
            out=folder,
            max_listed=max_listed,
            engine=engine,  # type: ignore[arg-type]  # the job refuses others
            progress=progress,
        )
    if as_json:
        print(json.dumps({**result.to_json(), "report": str(folder / "report.html")}))
    else:
        _show(result, folder)
    if junit is not None:
        write_junit(gates, result, junit)
    if reasons := failures(gates, result):
        print(say(f"heldout: failed on {', '.join(reasons)}."), file=sys.stderr)
        raise typer.Exit(1)


def _default_folder(data: str) -> Path:
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(data).stem)[:40]
    return Path("runs") / f"{time.strftime('%Y%m%d-%H%M%S')}-check-{name}"


def _show(result: "CheckResult", folder: Path) -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    console.print()
    console.print(result.headline, markup=False)
    console.print()
    for text in result.reading:
        console.print(f"data: {text}", markup=False)
    counts = result.counts
    table = Table(box=None, pad_edge=False)
    for column in ("", "exact", "near", "span"):
        table.add_column(column, justify="left" if not column else "right")
    for what in ("duplicates", "leaks"):
        table.add_row(
            what, *(f"{counts[f'{what}_{kind}']:,}" for kind in ("exact", "near", "span"))
        )
    console.print(table)
    for text in result.faults():
        console.print(text, markup=False)
    lines = [
        ("leaks by their prompt", counts["leaks_prompt"]),
        ("leaks by a long answer", counts["leaks_answer"]),
        ("leaks in other words", counts["leaks_paraphrase"]),
        ("groups on both sides", counts["leaks_group"]),
        ("test rows in training", counts["contaminated_rows"]),
        ("boilerplate spans", counts["boilerplate"]),
        ("personal data", counts.get("personal", 0)),
        ("suspects", counts["suspects"]),
        ("answers in doubt", counts.get("doubtful_answers", 0)),
    ]
    for name, num in lines:
        if num:
            console.print(f"{name}: {num:,}", markup=False)
    for text in result.warnings:
        console.print(f"warning: {text}", markup=False)
    for measured in result.measurements:
        if isinstance(measured, Measurement):
            console.print(f"{measured.name}: {measured.value:.4g} {measured.unit}", markup=False)
        elif measured.name in ASKED_FOR:
            console.print(f"{measured.name}: not measured: {measured.reason}", markup=False)
    for found in (result.label_noise, result.learning_curve):
        if found is not None:
            console.print(found.sentence, markup=False)
    console.print()
    if result.written:
        console.print(f"clean copy  {result.written}", markup=False, soft_wrap=True)
    console.print(f"report      {folder / 'report.html'}", markup=False, soft_wrap=True)
