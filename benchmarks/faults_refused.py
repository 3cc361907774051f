"""Commands that must be refused: settings, options, files, models, and runs that are damaged."""

import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults_files
import faults_models
import faults_runs
import faults_words
from faults_materials import FIT, Materials
from faults_processes import Ended, Place

Entry = dict[str, Any]
MOST_CHARACTERS = 1000


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    run: Callable[[Path], Entry]


def refused_cases(m: Materials) -> Iterator[Case]:
    yield from _of_settings(m)
    yield from _of_options(m)
    yield from _of_files(m)
    yield from _of_models(m)
    yield from _of_runs(m)


@dataclass(frozen=True)
class Refusal:
    """A command that must be refused with a line that holds the patterns."""

    arguments: Callable[[Path], list[str]]  # makes its files in the folder
    patterns: Sequence[str]
    may_pass: bool = False

    def run(self, folder: Path) -> Entry:
        place = Place(folder).make()
        arguments = self.arguments(place.at)
        before = _files(place.at)
        ended = place.run(arguments)
        after = _files(place.at)
        went_well = self.may_pass and ended.code == 0
        changed = [name for name in before if after.get(name) != before[name]]
        left = [name for name in after if name not in before]
        left += [f"tmp/{path.name}" for path in place.temporary.iterdir()]
        line = " ".join(ended.told).removeprefix("heldout: ")
        return {
            "code": ended.code,
            "command": _shown(arguments, place.at),
            "line": _anonymous(line, place.at),
            "cpu": round(ended.cpu, 2),
            "tracebacks": ended.has_traceback,
            "hangs": ended.code is None,
            "lost": [] if went_well else [_anonymous(name, place.at) for name in changed],
            "rubbish_left": [] if went_well else left,
            "unclear": "" if went_well else unclear(ended, self.patterns),
        }


def unclear(ended: Ended, patterns: Sequence[str]) -> str:
    """Why a refusal is none, or does not say what it is about; "" where all is well."""
    if ended.code != 2:
        return f"exit {ended.code}: {ended.err[-300:]}"
    if len(ended.told) != 1 or not ended.err.rstrip().endswith(ended.told[0]):
        return f"{len(ended.told)} lines"
    if len(ended.told[0]) > MOST_CHARACTERS:
        return f"{len(ended.told[0])} characters"
    missing = [each for each in patterns if not re.search(each, ended.told[0])]
    return f"does not name {missing}" if missing else ""


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of each file; locks are no files of the user's."""
    found = {}
    for path in folder.rglob("*"):
        if path.name == ".lock" or (path.is_dir() and not path.is_symlink()):
            continue
        state = path.lstat()
        found[path.relative_to(folder).as_posix()] = (state.st_size, state.st_mtime_ns)
    return found


def _shown(arguments: Sequence[str], at: Path) -> str:
    words = [_anonymous(word, at) for word in arguments]
    return shlex.join(["heldout", *words])


def _anonymous(text: str, at: Path) -> str:
    """Without the folders of this machine."""
    text = text.replace(f"{at}/", "").replace(str(at), ".")
    return re.sub(r"/[^ ]*/\.cache/faults/materials-\w+", "MATERIALS", text)


def _with_files(m: Materials, *, run: bool) -> Callable[[Path], None]:
    def make(at: Path) -> None:
        for name, text in faults_words.FILES.items():
            (at / name).parent.mkdir(exist_ok=True)
            (at / name).write_text(text)
        for name, content in faults_words.BYTES.items():
            (at / name).write_bytes(content)
        if run:
            copied(m.run("fit"), at / "run")

    return make


def copied(run: Path, to: Path) -> Path:
    """A run without its page, which is large."""
    return Path(shutil.copytree(run, to, ignore=shutil.ignore_patterns("ended", "report.html")))


def _of_settings(m: Materials) -> Iterator[Case]:
    for setting in faults_words.SETTINGS:
        key, _, value = setting.partition("=")
        parts = [re.escape(part) for part in key.split(".") if part]
        patterns = ["|".join(parts) or "--set"]
        if value and key and "Unknown" not in value:
            patterns.append(f"Unknown|section|{_as_told(value)}")
        yield _setting(m, setting, "full", patterns)
    for setting in ("model.lora_rank=100000000", "model.lora_targets=nosuch"):
        yield _setting(m, setting, "lora", [re.escape(setting.split("=")[1])])


def _setting(m: Materials, setting: str, recipe: str, patterns: Sequence[str]) -> Case:
    words = ["fit", "--model", str(m.model), "--data", str(m.rows), "--recipe", recipe]
    refusal = Refusal(lambda at: [*words, "--dry-run", "--set", setting], patterns)
    return Case("settings", f"setting {setting}", refusal.run)


def _as_told(value: str) -> str:
    """The value as a refusal may write it."""
    found = {value, value.strip("[]'\""), value.partition(":")[0]}
    with suppress(ValueError, OverflowError):
        found |= {f"{float(value):g}", repr(float(value)), f"{float(value):,.0f}"}
    return "|".join(re.escape(each) for each in found if each) or "empty"


def _of_options(m: Materials) -> Iterator[Case]:
    put = {
        "MODEL": str(m.model),
        "ROWS": str(m.rows),
        "CONFIG": str(m.config),
        "RUN": "run",
        "HYPERFIT": str(m.run("hyperfit")),
        "ENSEMBLE": str(m.run("ensemble")),
    }
    for pattern, words in faults_words.OPTIONS:
        pattern = pattern.replace("RUN_NAME", "run").replace("MODEL_NAME", "model")
        arguments = [put.get(word, word) for word in words.split()]
        files = _with_files(m, run="RUN" in words)

        def make(
            at: Path, arguments: list[str] = arguments, files: Callable[[Path], None] = files
        ) -> list[str]:
            files(at)
            return arguments

        yield Case("options", f"options {words}", Refusal(make, [pattern]).run)


def _of_files(m: Materials) -> Iterator[Case]:
    """Each file goes to one command, in turn."""
    commands: list[Callable[[str], list[str]]] = [
        lambda data: ["fit", "--model", str(m.model), "--data", data, *FIT, "--out", "run"],
        lambda data: ["check", data, "--out", "page"],
        lambda data: [*m.hyperfit[:4], data, *m.hyperfit[5:], "--out", "run"],
        lambda data: ["plan", "compress", data, "--model", str(m.model), "--out", "out"],
        lambda data: ["check", data, "--write-clean", "clean", "--out", "page"],
        lambda data: ["plan", "advise", "--model", str(m.model), "--data", data],
        lambda data: ["diagnose", str(m.model), "--train", data, "--heldout", str(m.rows)],
        lambda data: ["ensemble", "--model", str(m.model), "--data", data, *FIT, "--out", "all"],
    ]
    for number, (name, (maker, patterns)) in enumerate(faults_files.file_cases().items()):
        command = commands[number % len(commands)]

        def make(
            at: Path,
            maker: Callable[[Path], str] = maker,
            command: Callable[[str], list[str]] = command,
        ) -> list[str]:
            return command(maker(at))

        yield Case("files", f"rows: {name}", Refusal(make, patterns, may_pass=True).run)


def _of_models(m: Materials) -> Iterator[Case]:
    """Each model goes to one command, in turn; templates to fit, with conversations."""
    rows, parts = str(m.rows), [str(m.part(name)) for name in ("train", "validation", "test")]
    commands: list[Callable[[str], list[str]]] = [
        lambda model: ["fit", "--model", model, "--data", rows, *FIT, "--out", "run"],
        lambda model: ["ensemble", "--model", model, "--data", rows, *FIT, "--out", "all"],
        lambda model: [*("hyperfit", "--model", model, *m.hyperfit[3:]), "--out", "run"],
        lambda model: ["plan", "compress", rows, "--model", model, "--out", "out"],
        lambda model: ["diagnose", model, "--train", parts[0], "--heldout", parts[1]],
        lambda model: ["check", rows, "--model", model, "--out", "page"],
        lambda model: ["plan", "advise", "--model", model, "--data", rows],
    ]
    chat = [
        {
            "messages": [
                {"role": "user", "content": f"What is {n}?"},
                {"role": "assistant", "content": f"It is the number {n * 7} of {n * 3}."},
            ]
        }
        for n in range(40)
    ]
    for number, (name, (maker, pattern)) in enumerate(faults_models.MODELS.items()):
        command = commands[number % len(commands)]

        def make(
            at: Path,
            maker: faults_models.Maker = maker,
            command: Callable[[str], list[str]] = command,
        ) -> list[str]:
            return command(maker(at, m))

        refusal = Refusal(make, [pattern], may_pass=not pattern)
        yield Case("models", f"model: {name}", refusal.run)
    for name, (maker, pattern) in faults_models.TEMPLATES.items():

        def with_chat(at: Path, maker: faults_models.Maker = maker) -> list[str]:
            (at / "chat.jsonl").write_bytes(faults_files.lines(*chat))
            model = maker(at, m)
            return ["fit", "--model", model, "--data", "chat.jsonl", *FIT, "--out", "run"]

        yield Case("models", f"model: {name}", Refusal(with_chat, [pattern]).run)


def _of_runs(m: Materials) -> Iterator[Case]:
    """Damaged runs go to one command, in turn; each may do what it can without the file."""
    commands = (
        ["report", "run"],
        ["fit", "--resume", "run"],
        ["recipe", "run", "--for", "trl"],
        ["report", "run", "--verify"],
        ["counterfactual", "run", "--epochs", "0"],
        ["diagnose", "run", "--probe", "heldout_loss", "--no-generate"],
    )
    for number, (name, (file, change)) in enumerate(faults_runs.DAMAGED.items()):
        command = commands[number % len(commands)]

        def make(
            at: Path, change: faults_runs.Change = change, command: list[str] = command
        ) -> list[str]:
            change(copied(m.run("fit"), at / "run"))
            return command

        yield Case("runs", f"run of which {name}: {' '.join(command)}", _Tolerant(make, file).run)


@dataclass(frozen=True)
class _Tolerant:
    """Goes well, says 1 (``--verify``), or is refused in one line that names the file or run."""

    make: Callable[[Path], list[str]]
    file: str

    def run(self, folder: Path) -> Entry:
        entry = Refusal(
            self.make, [f"(?i){re.escape(self.file)}|run|--epochs|model"], may_pass=True
        ).run(folder)
        if entry["code"] == 1 and "--verify" in entry["command"] and not entry["tracebacks"]:
            entry |= {"unclear": "", "lost": [], "rubbish_left": []}
        return entry
