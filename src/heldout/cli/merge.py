"""``heldout merge``: parse, call the job, print."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from heldout.core.results.merge import MergePlan, MergeResult


def merge(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a folder of an adapter.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="For the merged model; new or empty.")
    ],
    dtype: Annotated[
        str,
        typer.Option(help="float32, bfloat16, float16, or keep: what the base's files hold."),
    ] = "keep",
    gguf: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also a GGUF file for llama.cpp, kept only if it reads back alike."
        ),
    ] = None,
    heldout: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Rows to measure on; default the run's validation part."),
    ] = None,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Run code that the run's recipe names.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be written and its size.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """The adapter merged into its base as one model, and whether it predicts as before."""
    from heldout.cli.progress import console_progress
    from heldout.jobs.merging import merge as job

    values: dict[str, Any] = {"out": out, "dtype": dtype, "gguf": gguf, "trust_code": trust_code}
    if dry_run:
        plan = job.dry_run_merge(run, **values)
        if as_json:
            print(json.dumps(plan.to_json(), allow_nan=False))
        else:
            _show_plan(plan)
        return
    with console_progress() as progress:
        result = job.merge(run, heldout=heldout, **values, progress=progress)
    if as_json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        _show(result)


def _show(result: "MergeResult") -> None:
    from heldout.cli.console import Console

    console = Console()
    warned = "WARNING: " if result.is_worse else ""
    console.print(f"{warned}{result.headline}", markup=False)
    near = result.agreement
    console.print(
        f"Logits of {near.num_rows} rows differ by {near.largest_difference:.2g} at most; "
        f"divergence {near.mean_kl_nats:.2g} nats a position, {near.largest_kl_nats:.2g} at most.",
        markup=False,
    )
    for note in result.notes:
        console.print(f"- {note}", markup=False)
    console.print(f"merged model  {result.out}", markup=False, soft_wrap=True)
    if result.gguf is not None:
        file, most = result.gguf.file, result.gguf.agreement.largest_difference
        console.print(f"GGUF file     {file}", markup=False, soft_wrap=True)
        console.print(
            f"Read back, its tokens are the same and its logits differ by {most:.2g} at most.",
            markup=False,
        )


def _show_plan(plan: "MergePlan") -> None:
    from heldout.cli.console import Console, Table

    console = Console()
    table = Table(show_header=False, box=None)
    table.add_row("model", plan.source)
    table.add_row("base", plan.base or "none: all weights were trained")
    table.add_row("parameters", f"{plan.num_parameters:,} in {plan.dtype}")
    for path, num_bytes in plan.writes.items():
        table.add_row("would write", path)
        table.add_row("", f"about {num_bytes / 1e9:.3g} GB")
    table.add_row("disk", f"{plan.free_bytes / 1e9:.1f} GB free")
    console.print(table)
    console.print("Nothing was written.")
