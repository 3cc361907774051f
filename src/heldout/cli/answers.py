"""``heldout try``: parse, call the job, print."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from heldout.core.errors import UserError
from heldout.core.language import say

if TYPE_CHECKING:
    from heldout.core.results.answers import Answer, Written

_WIDE = 100  # columns of a terminal from which answers stand side by side


def answers(
    run: Annotated[Path, typer.Argument(help="A run of heldout fit.")],
    prompt: Annotated[
        str | None, typer.Argument(help="To answer; without one, each line that is typed or piped.")
    ] = None,
    system: Annotated[
        str, typer.Option(help="System message, of a model trained on conversations.")
    ] = "",
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Of each answer; default 128, more of small tokens.")
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token, more draws them.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    trust_code: Annotated[
        bool,
        typer.Option("--trust-code", help="Run code that the run's recipe names, a model's own."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask a run's kept model and its base: answers side by side, with what training rows say too.

    Each prompt stands alone. Where the rows were conversations it goes through the chat template.
    """
    if prompt is not None and not prompt.strip():
        raise UserError("PROMPT is empty: write what is to be answered.")
    from heldout.core.results.answers import to_json
    from heldout.jobs.answering.answers import answers as job

    found = job(
        run,
        _lines() if prompt is None else prompt,
        system=system,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        trust_code=trust_code,
    )
    if as_json:
        print(json.dumps(to_json(list(found)), ensure_ascii=False))
        return
    for each in found:
        _show(each, prompt is None and not sys.stdin.isatty())


def _lines() -> Iterator[str]:
    """What is typed, or piped, up to its end; empty lines are passed over."""
    if not sys.stdin.isatty():
        yield from _piped()
        return
    print(say("One prompt a line; Ctrl-D ends."), file=sys.stderr)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line:
            yield line


def _piped() -> Iterator[str]:
    """Lines of standard input; UserError where they are none, or no text in UTF-8."""
    num = 0
    try:
        for line in sys.stdin:
            if line.strip():
                num += 1
                yield line.strip()
    except UnicodeDecodeError:
        raise UserError(
            "What is piped in is not text in UTF-8: convert it, by `iconv` for one."
        ) from None
    if not num:
        raise UserError("No prompt was given: write PROMPT, or pipe prompts in, one a line.")


def _show(answer: "Answer", names_prompt: bool) -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    if names_prompt:
        console.print(f"> {answer.prompt}", markup=False, style="bold")
    if answer.is_cut:
        console.print("The prompt is longer than the model reads: its beginning was left out.")
    models = {"Base model": answer.base, "Kept (best)": answer.best}
    shown = {name: written for name, written in models.items() if written is not None}
    if console.width >= _WIDE and len(shown) > 1:
        table = Table(box=None, pad_edge=False, expand=True, padding=(0, 2))
        for name in shown:
            table.add_column(name, ratio=1, overflow="fold")
        table.add_row(*map(_text, shown.values()))
        table.add_row(*(say(_about(written)) for written in shown.values()), style="dim")
        console.print(table)
    else:
        for name, written in shown.items():
            console.print(name, style="bold")
            console.print(_text(written))
            console.print(_about(written), style="dim", markup=False)
    console.print()


def _text(written: "Written") -> Any:
    """The answer, its copied stretch marked."""
    from rich.text import Text

    text = Text(written.text or "–")
    if written.copied is not None:
        text.stylize("reverse", written.copied.start, written.copied.stop)
    return text


def _about(written: "Written") -> str:
    """``23 tokens, 0.4 s; 14 of them word for word in training row 7: ...``"""
    parts = [f"{written.num_tokens} tokens in {written.seconds:.1f} s."]
    if not written.ended:
        parts.append("Cut at --max-new-tokens.")
    if written.copied is not None:
        quoted = " ".join(written.copied_text.split())
        parts.append(
            f"{written.copied.num_tokens} tokens stand word for word in training row "
            f'{written.copied.row}: "{quoted}"'
        )
    return " ".join(parts)
