"""The command line: parse, call a job, print. Commands and jobs are imported when they run."""

import difflib
import errno
import importlib
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from heldout.cli.renamed import with_names_of_now
from heldout.core.collecting import seldom_searched
from heldout.core.errors import Interrupted, UserError
from heldout.core.language import languages, say, using
from heldout.core.spelling import in_flags

# Each is a function in the file of its name, or where _OTHERWISE says, imported when asked for.
_COMMANDS = (
    *("fit", "report", "list", "check", "diagnose", "counterfactual", "hyperfit", "ensemble"),
    *("distill", "recipe", "push", "try", "merge"),
)
# Commands that are named after a word of Python's -> their file and their function.
_OTHERWISE = {"list": ("list", "list_catalog"), "try": ("answers", "answers")}
_PLAN = ("laws", "advise", "capacity", "compress")


def command_line(arguments: Sequence[str] = ()) -> typer.Typer:
    """The command that ``arguments`` begin with; all of them where they begin with none."""
    app = typer.Typer(
        name="heldout",
        help="Train and fine-tune causal language models on little data without overfitting, and "
        "prove it with a report.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    plan_app = typer.Typer(
        help="Before training: what more parameters, tokens and epochs would bring.",
        no_args_is_help=True,
    )
    app.callback(invoke_without_command=True)(options)
    first, second = [*arguments[:2], "", ""][:2]
    for name in [first] if first in _COMMANDS else [] if first == "plan" else _COMMANDS:
        app.command(name)(_function(name))
    if first not in _COMMANDS:
        app.add_typer(plan_app, name="plan")
        for name in [second] if first == "plan" and second in _PLAN else _PLAN:
            plan_app.command(name)(_function(name))
    return app


def _function(name: str) -> Callable[..., None]:
    file, function = _OTHERWISE.get(name, (name, name))
    return getattr(importlib.import_module(f"heldout.cli.{file}"), function)


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
    with in_flags():
        _main()


def _main() -> None:
    arguments: list[str] = []
    try:
        chosen, arguments = _language(sys.argv[1:])
        arguments, told = with_names_of_now(arguments)
        with using(chosen), _terminated_like_interrupted(), seldom_searched():
            for sentence in told:
                print("heldout:", say(sentence), file=sys.stderr)
            command = command_line(arguments)
            code = command(arguments, prog_name="heldout", standalone_mode=False) or 0
        if code == _INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(code)
    except UserError as error:
        _fail(str(error), 2)
    except Interrupted as stopped:
        goes_on = _how_to_go_on(arguments, stopped.run)
        _fail(str(stopped) or f"Stopped{' at once' * stopped.at_once}. {goes_on}", 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail(f"Stopped at once. {_how_to_go_on(arguments)}", 1)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            _fail(f"The disk is full{_at(error)}: free some space. {_how_to_go_on(arguments)}", 2)
        if error.filename and error.strerror:
            _fail(f"Cannot read or write{_at(error)}: {error.strerror}.", 2)
        raise
    except Exception as error:
        if hasattr(error, "format_message"):  # the parser's own: an unknown option, say
            if error.format_message():
                _fail(_refusal(error), 2)
            sys.exit(2)
        if _FULL_DISK.search(str(error)):
            _fail(f"The disk is full: free some space. {_how_to_go_on(arguments)}", 2)
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


_INTERRUPTED = 130  # what typer makes of KeyboardInterrupt
# What libraries say of a full disk in errors of their own; the last is torch, amid a file.
_FULL_DISK = re.compile(
    r"No space left on device|File too large|inline_container\.cc.* unexpected pos"
)


def _refusal(error: Any) -> str:
    """What the parser says, with the option or the setting that may be meant, and where to look."""
    context, words = error.ctx, [] if error.ctx is None else [error.ctx.info_name]
    while context is not None and context.parent is not None:
        context = context.parent
        words.insert(0, context.info_name)
    said = error.format_message().rstrip(".")
    if (name := getattr(error, "option_name", "")) and error.ctx is not None:
        known = [each for option in error.ctx.command.params for each in option.opts]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        meant = near[0] if near else ""
        if not meant and "--set" in known:
            from heldout.core.recipe import Recipe
            from heldout.core.recipe_fields import meant_key

            key = meant_key(name.lstrip("-").replace("-", "_"), Recipe)
            meant = key and f"--set {key}=..."
        said = f"No such option: {name}" + (f": did you mean {meant}?" if meant else "")
    command = " ".join(["heldout", *words[1:]])
    end = "" if said.endswith("?") else "."
    return f"{said}{end} Try `{command} --help`."


def _how_to_go_on(arguments: Sequence[str], run: Path | None = None) -> str:
    """What there is of a command that was stopped; nothing of one that keeps no state.

    ``run``: the folder that was written to, where that is known.
    """
    goes_on = {
        "fit": "A run that had begun goes on with `heldout fit --resume RUN`.",
        "hyperfit": "A run that had begun goes on with `heldout hyperfit --resume RUN`.",
        **dict.fromkeys(
            ("counterfactual", "distill"), "What was finished is kept: the same command goes on."
        ),
        **dict.fromkeys(
            ("ensemble", "advise", "capacity", "compress"),
            "With --out, what was finished is kept there: the same command goes on.",
        ),
    }
    names = [word for word in arguments if not word.startswith("-")]
    command = names[1] if names[:1] == ["plan"] and len(names) > 1 else "".join(names[:1])
    if run is not None and command in ("fit", "hyperfit"):
        folder, page = shlex.quote(str(run)), run / "report.html"
        said = f"`heldout {command} --resume {folder}` goes on."
        return f"{said} Its report so far: {page}" if page.exists() else said
    return goes_on.get(command, "Give the command again.")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, so that no temporary folder stays."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _at(error: OSError) -> str:
    return f" at {error.filename}" if error.filename else ""


def _fail(message: str, code: int) -> NoReturn:
    print(f"heldout: {message}", file=sys.stderr)
    sys.exit(code)
