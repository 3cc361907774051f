"""Options by the names that they had before: in no help, and gone in the next version."""

from collections.abc import Sequence

# Command -> name before -> name now.
RENAMED = {
    "check": {"--list": "--max-listed"},
    "counterfactual": {"--models": "--num-models"},
    "diagnose": {
        "--known": "--fact",
        "--no-generation": "--no-generate",
        "--rows": "--most-rows",
        "--runs-of": "--logs",
    },
    "laws": {"--parameters": "--counted"},
}


def with_names_of_now(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments with options as they are called now, and a sentence for each other one."""
    names = [word for word in arguments if not word.startswith("-")]
    command = "".join(names[1:2] if names[:1] == ["plan"] else names[:1])
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words, told = list(arguments), []
    for place, word in enumerate(arguments[:end]):
        name, equals, value = word.partition("=")
        if now := RENAMED.get(command, {}).get(name):
            words[place] = f"{now}{equals}{value}"
            told.append(f"{name} is called {now} now, and goes in the next version.")
    return words, told
