"""``heldout diagnose``: parse, call the job, print; gates and JUnit for continuous integration."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from heldout.cli import completing
from heldout.cli.junit import Case, refuse_unwritable, write_cases
from heldout.core.errors import UserError
from heldout.core.language import say
from heldout.core.results.diagnosis import Diagnosis
from heldout.core.verdict import VERDICTS, Verdicts


def diagnose(
    target: Annotated[
        str,
        typer.Argument(
            help="Run, model or adapter folder, Trainer output, or the log of a training alone."
        ),
    ],
    train: Annotated[str, typer.Option(help="The rows that it was trained on.")] = "",
    heldout: Annotated[str, typer.Option(help="Rows of the same kind that it has not seen.")] = "",
    base: Annotated[
        str, typer.Option(help="The model that training began with: the control of most figures.")
    ] = "",
    logs: Annotated[
        str,
        typer.Option(metavar="FILE", help="The log of the training, where it lies elsewhere."),
    ] = "",
    evaluation: Annotated[
        str,
        typer.Option(metavar="NAME", help="Of eval_NAME_loss, where the log holds several."),
    ] = "",
    goal: Annotated[
        str, typer.Option(help="generalize, recite or style: decides what counts as bad.")
    ] = "generalize",
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Other text to stay good on; may be repeated."),
    ] = None,
    canaries: Annotated[
        str, typer.Option(help="What `heldout check --plant-canaries` wrote.")
    ] = "",
    lexicon: Annotated[str, typer.Option(help="JSON {attribute: \\[words]}, to count.")] = "",
    tasks: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Tasks of the lm-evaluation-harness, if installed."),
    ] = "",
    include_path: Annotated[
        str, typer.Option(metavar="FOLDER", help="Task files of your own, for --tasks.")
    ] = "",
    fact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACT=VALUE", help="Of the training, such as epochs=3 or weight_decay=0."
        ),
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Only this probe (heldout list); may be repeated.")
    ] = None,
    generate: Annotated[
        bool, typer.Option(help="Let the model write; without, all that generates is left out.")
    ] = True,
    most_rows: Annotated[int, typer.Option(help="Rows of each part that are read at most.")] = 400,
    open_test: Annotated[
        bool,
        typer.Option(
            "--open-test", help="Open the sealed test of a run that can still be resumed, too."
        ),
    ] = False,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIGHT", help="Exit code 1 unless this light is green or yellow; repeatable."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The lights as JUnit XML.")
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            autocompletion=completing.recipes, help="Its \\[data] and \\[eval] sections count."
        ),
    ] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            autocompletion=completing.settings,
            help="Such as data.max_length=1024.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for report.html and diagnosis.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Read the log again as it grows, and tell when the verdict changes."
        ),
    ] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Between two readings of --watch.")
    ] = 30.0,
) -> None:
    """Is this model overfitted, what does it recite, why, and what to change?"""
    gates = _known_gates(fail_on or [])
    refuse_unwritable(junit)
    facts = {name: _value(text) for name, text in (_pair("--fact", text) for text in fact or ())}
    if watch:
        texts = {"--train": train, "--heldout": heldout, "--out": out, "--json": as_json}
        if given := next((name for name, value in texts.items() if value), None):
            raise UserError(f"--watch reads a log alone and writes lines: leave {given} out.")
        _watch(target, evaluation, {"goal": goal, **facts}, every, gates)
        return
    from heldout.cli.progress import console_progress
    from heldout.jobs.diagnosing.diagnose import diagnose as job

    with console_progress() as progress:
        result = job(
            target,
            train=train,
            heldout=heldout,
            base=base,
            logs=logs,
            evaluation=evaluation,
            goal=goal,  # type: ignore[arg-type]  # the job refuses others
            domains=dict(_pair("--domain", text) for text in domain or ()),
            canaries=canaries,
            lexicon=lexicon,
            tasks=[name.strip() for name in tasks.split(",") if name.strip()],
            include_path=include_path,
            facts=facts,
            probes=probe or (),
            generate=generate,
            most_rows=most_rows,
            open_test=open_test,
            recipe=recipe,
            settings=settings or (),
            out=out,
            progress=progress,
        )
    if junit is not None:
        write_junit(result.verdict, gates, junit)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        show_diagnosis(result, out)
    if failed := failures(result.verdict, gates):
        print(say(f"heldout: failed on {', '.join(failed)}."), file=sys.stderr)
        raise typer.Exit(1)


def _watch(
    target: str, evaluation: str, facts: dict[str, Any], every: float, gates: list[str]
) -> None:
    """A line each time the verdict changes; the gates are those of the last one."""
    from heldout.jobs.diagnosing.watch import watch

    last = None
    try:
        for seen in watch(target, evaluation=evaluation, facts=facts, every=every):
            if seen.result is None:
                print(say("No verdict yet:"), seen.waiting, flush=True)
                continue
            last = seen.result.verdict
            color = say(last.verdicts["fit"].color)
            print(say(f"Step {seen.step}"), color, say(last.headline), sep=": ")
            for cause in last.causes[:1]:
                print(say(f"   {cause.name.replace('_', ' ')} ({cause.confidence:.0%} sure)"))
            if seen.over == "ended":
                print(say("The training has ended."))
            elif seen.over:
                print(say("Nothing was written for an hour: the training seems to be over."))
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(say("No longer watched."))
    if last is not None and (failed := failures(last, gates)):
        print(say(f"heldout: failed on {', '.join(failed)}."), file=sys.stderr)
        raise typer.Exit(1)


def _known_gates(names: list[str]) -> list[str]:
    for name in names:
        if name not in VERDICTS:
            raise UserError(f"--fail-on must be one of {', '.join(VERDICTS)}, got {name!r}.")
    return names


def failures(verdict: Verdicts, gates: list[str]) -> list[str]:
    """Gates that are not passed: red, or not measured, which is no pass."""
    bad = {"red": "", "unknown": " (not measured)"}
    colors = {gate: verdict.verdicts[gate].color for gate in gates}
    return [gate + bad[color] for gate, color in colors.items() if color in bad]


def write_junit(verdicts: Verdicts, gates: list[str], path: Path) -> None:
    """One test case a verdict: a failure where a gate fails, else what is unknown is skipped."""
    cases = []
    for name, verdict in verdicts.verdicts.items():
        status: Literal["passed", "failed", "skipped"] = "passed"
        if failures(verdicts, [name] if name in gates else []):
            status = "failed"
        elif verdict.color == "unknown":
            status = "skipped"
        told = f"{verdict.color}: {verdict.sentence}"
        cases.append(Case(name, status, verdict.sentence, verdict.color, told))
    write_cases(path, "heldout diagnose", "heldout.lights", cases)


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UserError(f"{option} must be NAME=VALUE, got {text!r}.")
    return name, value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def show_diagnosis(result: Diagnosis, out: Path | None) -> None:
    """Verdicts, warnings, causes, remedies and memorized rows, for people."""
    from heldout.cli.console import Console
    from heldout.cli.show import verdict_lines

    console = Console()
    say = partial(console.print, markup=False)
    say()
    say(result.verdict.headline)
    say()
    verdict_lines(console, result.verdict)
    for text in result.warnings:
        if text != result.verdict.headline:
            say(f"\n{text}")
    for number, cause in enumerate(result.verdict.causes, 1):
        say(f"\n{number}. {cause.name.replace('_', ' ')} ({cause.confidence:.0%} sure)")
        for sign, sentences in (("+", cause.evidence_for), ("-", cause.evidence_against)):
            for sentence in sentences:
                say(f"   {sign}", sentence)
        say(f"   would tell: {cause.test}")
    if result.remedies:
        say("\nWorth trying, the most promising first:")
    for remedy in result.remedies[:5]:
        setting = remedy.settings.get("heldout", "")
        say(f"   {remedy.name}: {setting}".rstrip(": "))
        say(f"     {remedy.why}")
    if result.recited:
        say(f"\n{len(result.recited)} training rows are recited, such as:")
        for row in result.recited[:3]:
            say(f"   row {row.row}: …{row.suffix[:90]!r}")
    if out is not None:
        say(f"\nreport  {out / 'report.html'}", soft_wrap=True)
