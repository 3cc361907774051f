"""The command line: parse, call a job, print. Jobs are imported only when they run."""

import errno
import sys
from typing import Annotated, NoReturn

import typer

from heldout.cli.advise import advise
from heldout.cli.capacity import capacity
from heldout.cli.check import check
from heldout.cli.compress import compress
from heldout.cli.counterfactual import counterfactual
from heldout.cli.diagnose import diagnose
from heldout.cli.distill import distill
from heldout.cli.ensemble import ensemble
from heldout.cli.fit import fit
from heldout.cli.hyperfit import hyperfit
from heldout.cli.laws import laws
from heldout.cli.list import list_catalog
from heldout.cli.recipe import recipe
from heldout.cli.report import report
from heldout.core.errors import Interrupted, UserError
from heldout.core.language import languages, using

app = typer.Typer(
    name="heldout",
    help="Train and fine-tune causal language models on little data without overfitting, and "
    "prove it with a report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
plan_app = typer.Typer(
    help="Before training: what more parameters, tokens and epochs would bring.",
    no_args_is_help=True,
)

app.command()(fit)
app.command()(report)
app.add_typer(plan_app, name="plan")
app.command("list")(list_catalog)
app.command()(check)
app.command()(diagnose)
app.command()(counterfactual)
app.command()(hyperfit)
app.command()(ensemble)
app.command()(distill)
app.command("recipe")(recipe)

plan_app.command()(laws)
plan_app.command()(advise)
plan_app.command()(capacity)
plan_app.command()(compress)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    lang: Annotated[
        str,
        typer.Option(
            help="Language of reports and of what is printed, also after a command: "
            f"{', '.join(languages())}. JSON, errors and help stay English.",
            envvar="HELDOUT_LANG",
        ),
    ] = "en",
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"heldout {installed('heldout')}")
        raise typer.Exit


def main() -> None:
    """Entry point: 0 done, 1 interrupted or a gate failed, 2 bad input in one clear line."""
    try:
        chosen, arguments = _language(sys.argv[1:])
        with using(chosen):
            sys.exit(app(arguments, standalone_mode=False) or 0)
    except UserError as error:
        _fail(str(error), 2)
    except Interrupted as stopped:
        _fail(
            str(stopped)
            or "Stopped. What there is has been kept; go on with `heldout fit --resume RUN`.",
            1,
        )
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


def _language(arguments: list[str]) -> tuple[str, list[str]]:
    """What ``--lang`` says, wherever it stands, and the arguments without it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    rest, chosen = [], ""
    words = iter(arguments[:end])
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--lang":
            chosen = value if equals else next(words, "")
            if not chosen:
                raise UserError(f"--lang must name a language: {', '.join(languages())}.")
        else:
            rest.append(word)
    return chosen, [*rest, *arguments[end:]]


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _fail(message: str, code: int) -> NoReturn:
    print(f"heldout: {message}", file=sys.stderr)
    sys.exit(code)
