"""``heldout diagnose``: parse, call the job, print; gates and JUnit for continuous integration."""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Annotated, Any

import typer

from heldout.core.errors import UserError
from heldout.core.verdict import VERDICTS, Verdicts


def diagnose(
    target: Annotated[
        str,
        typer.Argument(help="Run, model or adapter folder, Trainer output, or trainer_state.json."),
    ],
    train: Annotated[str, typer.Option(help="The rows that it was trained on.")] = "",
    heldout: Annotated[str, typer.Option(help="Rows of the same kind that it has not seen.")] = "",
    base: Annotated[
        str, typer.Option(help="The model that training began with: the control of most figures.")
    ] = "",
    logs: Annotated[
        str,
        typer.Option(
            "--runs-of", metavar="FILE", help="trainer_state.json, where it lies elsewhere."
        ),
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
    lexicon: Annotated[str, typer.Option(help="JSON {attribute: [words]}, to count.")] = "",
    tasks: Annotated[
        str,
        typer.Option(metavar="NAME,...", help="Tasks of the lm-evaluation-harness, if installed."),
    ] = "",
    include_path: Annotated[
        str, typer.Option(metavar="FOLDER", help="Task files of your own, for --tasks.")
    ] = "",
    known: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FACT=VALUE", help="Of the training, such as epochs=3 or weight_decay=0."
        ),
    ] = None,
    probe: Annotated[
        list[str] | None, typer.Option(help="Only this probe (heldout list); may be repeated.")
    ] = None,
    no_generation: Annotated[
        bool, typer.Option("--no-generation", help="Leave out all that generates text.")
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of each part that are read at most.")] = 400,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIGHT", help="Exit code 1 unless this light is green or yellow; repeatable."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The lights as JUnit XML.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Its [data] and [eval] sections count.")] = "default",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as data.max_length=1024."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A new folder for report.html and diagnosis.json.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Is this model overfitted, what does it recite, why, and what to change?"""
    for gate in fail_on or ():
        if gate not in VERDICTS:
            raise UserError(f"--fail-on must be one of {', '.join(VERDICTS)}, got {gate!r}.")
    from heldout.cli.progress import console_progress
    from heldout.jobs.diagnose import diagnose as job

    with console_progress() as progress:
        result = job(
            target,
            train=train,
            heldout=heldout,
            base=base,
            logs=logs,
            goal=goal,  # type: ignore[arg-type]  # the job refuses others
            domains=dict(_pair("--domain", text) for text in domain or ()),
            canaries=canaries,
            lexicon=lexicon,
            tasks=[name.strip() for name in tasks.split(",") if name.strip()],
            include_path=include_path,
            facts={name: _value(text) for name, text in (_pair("--known", k) for k in known or ())},
            probes=probe or (),
            generate=not no_generation,
            most_rows=rows,
            recipe=recipe,
            settings=settings or (),
            out=out,
            progress=progress,
        )
    if junit is not None:
        write_junit(result.verdict, fail_on or (), junit)
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        _show(result, out)
    if failed := failures(result.verdict, fail_on or ()):
        print(f"heldout: failed on {', '.join(failed)}.", file=sys.stderr)
        raise typer.Exit(1)


def failures(verdict: Verdicts, gates: Any) -> list[str]:
    """Gates that are not passed: red, or not measured, which is no pass."""
    bad = {"red": "", "unknown": " (not measured)"}
    lights = {gate: verdict.verdicts[gate].color for gate in gates}
    return [gate + bad[light] for gate, light in lights.items() if light in bad]


def write_junit(verdict: Verdicts, gates: Any, path: Path) -> None:
    """One test case a light: a failure where a gate fails, else what is unknown is skipped."""
    cases = ElementTree.Element("testsuite", name="heldout diagnose", tests=str(len(VERDICTS)))
    num_failed = 0
    for name, light in verdict.verdicts.items():
        case = ElementTree.SubElement(cases, "testcase", classname="heldout.lights", name=name)
        if failures(verdict, [name] if name in gates else []):
            num_failed += 1
            ElementTree.SubElement(case, "failure", message=light.sentence, type=light.color)
        elif light.color == "unknown":
            ElementTree.SubElement(case, "skipped", message=light.sentence)
        ElementTree.SubElement(case, "system-out").text = f"{light.color}: {light.sentence}"
    cases.set("failures", str(num_failed))
    partial = path.with_name(path.name + ".partial")
    ElementTree.ElementTree(cases).write(partial, encoding="utf-8", xml_declaration=True)
    partial.replace(path)


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


def _show(result: Any, out: Path | None) -> None:
    from rich.console import Console

    from heldout.cli.show import verdict_lines

    console = Console(highlight=False)
    console.print()
    console.print(result.verdict.headline, markup=False)
    console.print()
    verdict_lines(console, result.verdict)
    for text in result.warnings:
        console.print(f"\n{text}", markup=False)
    for number, cause in enumerate(result.verdict.causes, 1):
        console.print(
            f"\n{number}. {cause.name.replace('_', ' ')} ({cause.confidence:.0%} sure)",
            markup=False,
        )
        for sign, sentences in (("+", cause.evidence_for), ("-", cause.evidence_against)):
            for sentence in sentences:
                console.print(f"   {sign} {sentence}", markup=False)
        console.print(f"   would tell: {cause.test}", markup=False)
    if result.remedies:
        console.print("\nWorth trying, the most promising first:", markup=False)
    for remedy in result.remedies[:5]:
        setting = remedy.settings.get("heldout", "")
        console.print(f"   {remedy.name}: {setting}".rstrip(": "), markup=False)
        console.print(f"     {remedy.why}", markup=False)
    if result.recited:
        console.print(f"\n{len(result.recited)} training rows are recited, such as:", markup=False)
        for row in result.recited[:3]:
            console.print(f"   row {row.row}: …{row.suffix[:90]!r}", markup=False)
    if out is not None:
        console.print(f"\nreport  {out / 'report.html'}", markup=False, soft_wrap=True)
