"""``heldout plan advise``: parse, call the job, print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from heldout.cli import completing
from heldout.cli.console import Console, Table
from heldout.core.language import say

if TYPE_CHECKING:
    from heldout.core.results.advice import Advice, RecipeAdvice


def advise(
    model: Annotated[
        str, typer.Option("--model", "-m", help="To fine-tune; with --from-scratch its tokenizer.")
    ] = "",
    from_scratch: Annotated[
        str, typer.Option(metavar="CONFIG", help="A config.json to train from random weights.")
    ] = "",
    parameters: Annotated[
        float | None, typer.Option(help="Size of a model from scratch; default: the best one.")
    ] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="Count its training tokens.")] = "",
    unique_tokens: Annotated[
        float | None, typer.Option(help="Tokens of training data, each counted once.")
    ] = None,
    flops: Annotated[float | None, typer.Option(help="Training compute, C = 6 N D.")] = None,
    hours: Annotated[
        float | None, typer.Option(help="Time to train, or for all of a fine-tuning.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="The same in minutes.")] = None,
    flops_per_second: Annotated[
        float | None, typer.Option(help="Sustained rate of the hardware; from scratch, with time.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Ask about so many; default: the best number.")
    ] = None,
    serve_tokens: Annotated[
        float | None, typer.Option(help="Tokens to be served: cost of training and serving.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="RUNS.csv", help="Own runs, as for `plan laws`.")
    ] = None,
    law: Annotated[
        str, typer.Option(help="A law of `heldout list law`; default: the best forecaster.")
    ] = "",
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=COLUMN", help="As for `plan laws`.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN=VALUE", help="Keep these runs only.")
    ] = None,
    counted: Annotated[
        str, typer.Option(help="How N of --runs was counted: total or non-embedding.")
    ] = "",
    loss_unit: Annotated[
        str, typer.Option(help="nats-per-token, bits-per-byte or perplexity.")
    ] = "",
    uniform_loss: Annotated[
        float | None, typer.Option(help="Loss of a uniform guess, for laws that saturate.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Train on parts of --data: is more of it worth it?")
    ] = False,
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing.recipes, help="Of --measure and of how --data is split."
        ),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", autocompletion=completing.settings, help="Of the recipe."
        ),
    ] = None,
    goal: Annotated[
        str,
        typer.Option(
            help="Of a fine-tuning: loss (default), memorization, forgetting, calibration."
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write advice.json and report.html here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The recipe to fine-tune with, and why; from scratch size and epochs for a budget."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.planning.advise import advise as job
    from heldout.jobs.planning.fitted_law import OwnRuns
    from heldout.jobs.planning.question import AskedData, AskedModel, Budget, Question

    own_runs = None
    if runs is not None:
        own_runs = OwnRuns(runs, column or [], where or [], counted, loss_unit, uniform_loss)
    question = Question(
        AskedModel(model, from_scratch, parameters),
        AskedData(data, unique_tokens, measure),
        Budget(flops, hours, flops_per_second, minutes),
        epochs=epochs,
        serve_tokens=serve_tokens,
        runs=own_runs,
        law=law,
        recipe=recipe or ("full" if from_scratch else "default"),
        settings=settings or [],
        goal=goal,
    )
    with console_progress() as progress:
        result = job(question, out=out, progress=progress)
    show_advice(result, as_json)


def show_advice(advice: "Advice", as_json: bool) -> None:
    """Recipe, plan, settings, doublings and what nobody knows."""
    if as_json:
        print(json.dumps(advice.to_json(), allow_nan=False))
        return
    console = Console()
    if advice.fine_tuning is not None:
        _show_recipe(console, advice.fine_tuning)
    plan, law = advice.plan, advice.law
    if plan is not None and law is not None:
        bounds = "" if plan.low is None else f" (95 %: {plan.low:.3f} to {plan.high:.3f})"
        console.print(
            f"{plan.N:.3g} parameters, {plan.D:.3g} tokens, {plan.epochs:.3g} epochs, "
            f"{plan.flops:.3g} FLOPs: predicted loss {plan.loss:.3f}{bounds} {advice.loss_unit}",
            markup=False,
        )
        console.print(f"law  {law.name}: {law.source} ({say(law.basis)})", markup=False)
        console.print(f"because {law.reason}\n", markup=False)
    if advice.settings:
        table = Table(box=None, pad_edge=False)
        for column in ("setting", "value", "from", "in words"):
            table.add_column(column)
        for row in advice.settings:
            value = "not known" if row.value is None else f"{row.value:.3g}"
            table.add_row(row.name, value, row.basis, row.sentence)
        console.print(table)
    if advice.doublings:
        console.print()
        for each in advice.doublings:
            console.print(f"2 x {each.what}: {each.sentence}", markup=False)
    if advice.other is not None:
        console.print(
            f"\nBy other published constants, for one epoch: {advice.other.N:.3g} parameters, "
            f"{advice.other.D:.3g} tokens, loss {advice.other.loss:.3f}."
        )
    for part in (advice.serving, advice.learning_curve):
        if part is not None:
            console.print(f"\n{part.sentence}", markup=False)
    notes = [*advice.notes, *(advice.learning_curve.notes if advice.learning_curve else ())]
    console.print()
    for note in notes:
        console.print(f"- {note}", markup=False)
    if advice.report:
        console.print(f"report  {advice.report}", markup=False, soft_wrap=True)


def _show_recipe(console: Console, advice: "RecipeAdvice") -> None:
    """The commands, what they follow from, and each choice with its reason."""
    for command in advice.commands:
        console.print(Text(command), soft_wrap=True)
    console.print()
    for fact in advice.facts:
        if fact.words:
            console.print(f"- {fact.words}", markup=False)
    for choice in advice.choices:
        console.print()
        console.print(f"{choice.about}: {choice.says}", markup=False)
        for setting in choice.tries:
            console.print(Text(f"  --set {setting}"), soft_wrap=True)
        console.print(f"  {choice.reason}", markup=False)
        kind, names = choice.rests_on
        console.print(Text(f"  {say(kind)}: {names}"))
        console.print(f"  would change it: {choice.changes}", markup=False)
    console.print()
    console.print(advice.not_known, markup=False)
