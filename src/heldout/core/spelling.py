"""How an argument is spelled in what is raised: as Python does, or as the command line does.

Sentences name arguments by their flags. In the library, where ``heldout.fit(...)`` was called, an
error says them as the functions spell them; the command line says that it speaks in flags.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Flag -> what to write in Python, where it is not the flag without dashes.
ARGUMENTS = {
    "--set": "settings",
    "--resume": "heldout.resume(RUN)",
    "--fact": "facts",
    "--probe": "probes",
    "--no-generate": "generate=False",
    "--open-test": "open_test=True",
    "--domain": "domains",
    "--watch": "target",
    "--for": "trainer",
    "--end-search": "end_search=True",
    "--redact": "redact=True",
    "--trust-code": "trust_code=True",
    "--minutes": "train.max_minutes",
    "--learn-chosen": 'settings=["data.learn_chosen=true"]',
    "--learning-curve": "learning_curve=True",
    "--measure": "measure=True",
    "--load": "loads",
    "--config": "configs",
    "--column": "columns",
    "--public": "private=False",
    "--private": "private=True",
    "--with-report": "with_report=True",
}
# Of functions that take one, under the same name with an underscore for a dash.
SAME = frozenset(
    [
        "--against",
        "--base",
        "--blocks",
        "--canaries",
        "--counted",
        "--cross-validate",
        "--data",
        "--delta",
        "--dtype",
        "--engine",
        "--epochs",
        "--evaluation",
        "--every",
        "--flops",
        "--flops-per-second",
        "--from-scratch",
        "--gguf",
        "--goal",
        "--heldout",
        "--hours",
        "--include-path",
        "--law",
        "--learning-rate",
        "--length",
        "--lexicon",
        "--logs",
        "--loss-unit",
        "--max-listed",
        "--max-new-tokens",
        "--members",
        "--model",
        "--model-rows",
        "--most-rows",
        "--num-models",
        "--out",
        "--parameters",
        "--plant-canaries",
        "--recipe",
        "--reference",
        "--rows",
        "--runs",
        "--seed",
        "--semantic",
        "--serve-tokens",
        "--steps",
        "--strategy",
        "--system",
        "--tasks",
        "--temperature",
        "--train",
        "--uniform-loss",
        "--unique-tokens",
        "--weight",
        "--where",
        "--write-clean",
    ]
)
# What stands in code is a command to type, and so is what follows a command's name.
_KEPT = r"`[^`]*`|\bheldout (?:plan )?[a-z]+ --[a-z-]+"
_SETTING = r"--set (?P<setting>[\w.{}]+=(?:\[[^\]]*\]|[^\s,;:)]*[^\s,.;:)]|(?=\W|$)))"
_FOUND = re.compile(rf"{_KEPT}|{_SETTING}|(?<![\w-])(?P<flag>--[a-z][a-z-]*)")
_in_flags = False


def in_python(words: str) -> str:
    """The sentence with arguments as functions spell them."""

    def spelled(found: re.Match) -> str:
        if found["setting"]:
            return f'settings=["{found["setting"]}"]'
        flag = found["flag"]
        if flag in ARGUMENTS:
            return ARGUMENTS[flag]
        return flag[2:].replace("-", "_") if flag in SAME else found[0]

    return re.sub(r'"\] settings=\["', '", "', _FOUND.sub(spelled, words))


def as_spoken(words: str) -> str:
    """The sentence for whoever called: in flags on the command line, else in Python's names."""
    return words if _in_flags else in_python(words)


@contextmanager
def in_flags() -> Iterator[None]:
    """While the block runs, errors name flags."""
    global _in_flags
    before, _in_flags = _in_flags, True
    try:
        yield
    finally:
        _in_flags = before
