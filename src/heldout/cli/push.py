"""``heldout push``: parse, call the job, print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from heldout.core.results.push import Pushed

_HEAD = 14  # lines of the card, behind its metadata


def push(
    run: Annotated[Path, typer.Argument(help="A finished run of heldout fit.")],
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="On the Hub; made where it is not there yet.")
    ],
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="List the files and the card; no network, nothing sent."),
    ] = False,
    private: Annotated[
        bool, typer.Option("--private/--public", help="Who may see a new repository.")
    ] = True,
    with_report: Annotated[
        bool,
        typer.Option(
            "--with-report",
            help="Also the report, without rows, samples, names and paths, as of heldout report "
            "--redact.",
        ),
    ] = False,
    base: Annotated[
        str,
        typer.Option(
            metavar="ORG/NAME", help="The base on the Hub, where it was trained from a copy here."
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Upload the kept model of a run and its card to the Hugging Face Hub, and none of its rows.

    The token is HF_TOKEN, or what `hf auth login` has kept.
    """
    from heldout.jobs.exporting import push as jobs

    job = jobs.dry_run_push if dry_run else jobs.push
    found = job(run, repository, private=private, with_report=with_report, base=base)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        _show(found)


def _show(found: "Pushed") -> None:
    from heldout.cli.console import Console, Table

    console = Console(soft_wrap=True)
    if found.url:
        console.print(f"Uploaded {len(found.files)} files to {found.url}", markup=False)
        if found.card_check == "skipped":
            console.print("The Hub's own check of the card was skipped: it gave no answer.")
    else:
        console.print(
            f"Dry run, nothing was uploaded. To {found.repository} "
            f"({'private' if found.is_private else 'public'}) would go:"
        )
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for file in found.files:
        table.add_row(_size(file.num_bytes), file.name)
    table.add_row(_size(found.num_bytes), "in all")
    console.print(table)
    if found.left_out:
        listed = ", ".join(found.left_out)
        console.print(f"Left out, of no kind that others need: {listed}", markup=False)
    if not found.url:
        text = found.card.split("---\n", 2)[2].strip().splitlines()
        console.print("The card begins:")
        print("\n".join(f"  {line}".rstrip() for line in text[:_HEAD]))
        console.print("The Hub's own check of the card was skipped: a dry run asks nobody.")


def _size(num_bytes: int) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes} B"
