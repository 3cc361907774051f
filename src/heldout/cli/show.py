"""Print typed results, for people or as one JSON object with its schema."""

import dataclasses
import importlib
import inspect
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.cells import set_cell_size
from rich.text import Text

from heldout.cli.console import Console, Table
from heldout.core.discovery import Entry, plugin_class
from heldout.core.language import say
from heldout.core.run import Run
from heldout.core.verdict import Verdicts

if TYPE_CHECKING:
    from heldout.jobs.kit.dry_run import DryRun

_MARKS = {"green": "[green]●[/]", "yellow": "[yellow]●[/]", "red": "[red]●[/]", "unknown": "○"}


def show_result(run: Run, verdict: Verdicts, as_json: bool) -> None:
    """The verdict, and where best/ and the report lie."""
    if as_json:
        result = run.read_json("result.json")
        print(
            json.dumps(
                {
                    "schema": "heldout.fit/1",
                    "run": str(run.folder),
                    "best": str(run.best),
                    "report": str(run.path("report.html")),
                    "figures": result["figures"],
                    "verdict": verdict.to_json(),
                }
            )
        )
        return
    console = Console()
    console.print()
    console.print(verdict.headline, markup=False)
    console.print()
    verdict_lines(console, verdict)
    for check in run.read_json("checks.json"):
        if check["name"] == "time limit":
            console.print(f"\n{check['message']}", markup=False)
    console.print()
    console.print(f"best checkpoint  {run.best}", markup=False, soft_wrap=True)
    console.print(f"report           {run.path('report.html')}", markup=False, soft_wrap=True)


def verdict_lines(console: Console, verdict: Verdicts) -> None:
    """The seven verdicts, a line each."""
    for name, one in verdict.verdicts.items():
        console.print(f"{_MARKS[one.color]} {set_cell_size(say(name), 13)} ", end="")
        console.print(one.sentence, markup=False)


def show_plan(plan: "DryRun", as_json: bool) -> None:
    """What a run would do."""
    if as_json:
        print(json.dumps({"schema": "heldout.plan/1", **asdict(plan)}))
        return
    console = Console()
    parts = ", ".join(
        f"{part} {count:,} ({plan.groups[part]:,} groups)" for part, count in plan.rows.items()
    )
    words = "split" if plan.mode == "split" else "cross-validation, no sealed test"
    if plan.mode == "cross_validation" and plan.rows["test"]:
        words = "cross-validation, and a sealed test"
    table = Table(show_header=False, box=None)
    table.add_row("rows", f"{parts}: {words}")
    table.add_row(
        "parameters", f"{plan.trained_parameters:,} trained of {plan.parameters:,} in the model"
    )
    table.add_row(
        "steps",
        f"{plan.steps_per_epoch:,} an epoch, at most {plan.max_steps:,}; "
        f"evaluated {plan.evaluations_per_epoch:g} times an epoch",
    )
    if plan.estimate is not None:
        table.add_row("time", plan.estimate.words)
    table.add_row("each step", plan.step_cost)
    for check in plan.checks:
        mark = "" if check.status == "ok" else "WARNING: "
        table.add_row(check.name, mark + check.message)
    console.print(table)
    console.print("Nothing was written.")


def show_laws(result: dict, as_json: bool) -> None:
    """The law with its parameters and intervals, the forecasts of all laws, and the warnings."""
    if as_json:
        print(json.dumps(result, allow_nan=False))
        return
    console = Console()
    console.print(f"{result['law']}: {result['formula']}", markup=False)
    sure = result["certificate"]
    console.print(
        f"{result['num_runs']} runs, typical error {100 * result['rms_log_loss']:.2f} %, objective "
        f"{result['objective']:.8g}; {sure['num_same']} of {sure['num_starts']} starts agree.\n",
        markup=False,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("parameter", "value", "95 % from", "to", "unit"):
        table.add_column(column)
    for name, value in result["parameters"].items():
        bounds = result["intervals"].get(name, {"low": value, "high": value})
        ends = (
            "no bound" if end is None else f"{end:.4g}" for end in (bounds["low"], bounds["high"])
        )
        table.add_row(name, f"{value:.4g}", *ends, result["units"][name])
    console.print(table)
    if result["rollouts"]:
        console.print("\nForecasts of larger runs, typical error of log loss:")
        laws = list(result["rollouts"][0]["errors"])
        table = Table(box=None, pad_edge=False)
        for column in ("along", "fitted up to", *laws):
            table.add_column(column)
        for row in result["rollouts"]:
            errors = (f"{row['errors'][law]:.3f}" for law in laws)
            table.add_row(row["axis"], f"{row['cutoff']:.3g}", *errors)
        scores = result["choice"]["scores"]
        table.add_row("score", "", *(f"{scores[law]:.3f}" for law in laws))
        console.print(table)
        choice = result["choice"]
        console.print(f"Chosen by forecasts: {choice['law']}, {choice['reason']}.", markup=False)
    for warning in result["warnings"]:
        console.print(f"- {warning}", markup=False)
    if result["report"]:
        console.print(f"report  {result['report']}", markup=False, soft_wrap=True)


def show_entries(entries: list[Entry], as_json: bool) -> None:
    """One line a plug-in, or ``[{kind, name, source, cost, summary}]``."""
    if as_json:
        fields = ("kind", "name", "source", "cost", "summary")
        print(json.dumps([{key: getattr(entry, key) for key in fields} for entry in entries]))
        return
    console = Console()
    wide = console.width >= 140
    for kind in dict.fromkeys(entry.kind for entry in entries):
        console.print(kind, style="bold")
        table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        for _ in range(3 if wide else 1):
            table.add_column(overflow="fold")
        for entry in entries:
            if entry.kind == kind:
                more = (entry.cost, entry.source) if wide else ()
                table.add_row(Text(f"  {entry.name}"), entry.summary, *more)
        console.print(table)
    if not wide:
        console.print("`heldout list NAME` tells cost, source and parameters of one.")


def show_card(entry: Entry) -> None:
    """All that one plug-in says of itself, with its parameters and their defaults."""
    console = Console()
    console.print(f"{entry.kind} {entry.name}\n", style="bold")
    if entry.module:
        plugin = plugin_class(entry)
        doc = inspect.getdoc(importlib.import_module(entry.module))
        console.print(doc, markup=False, soft_wrap=True)
        console.print(f"\n{inspect.getdoc(plugin)}\n", markup=False, soft_wrap=True)
        for item in dataclasses.fields(plugin):
            if item.init:
                console.print(f"  {item.name} = {item.default!r}", markup=False)
    else:
        console.print(entry.summary, markup=False)
        for name, words in entry.notes.items():
            if name != "Cost":
                console.print(f"\n{name}: {words}", markup=False)
    console.print(f"\ncost: {entry.cost}\nsource: {entry.source}", markup=False)
