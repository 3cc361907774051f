"""Is the light `generation` red where a model's writing was broken, and silent where it is sound?

    python benchmarks/generated_text.py --minutes 10     # goes on where it was, any number of times
    python benchmarks/generated_text.py --record         # and write the record
    python benchmarks/generated_text.py --tiny           # one case of each kind, short; no record

The embedded model is fine-tuned whole on 64 rows of three texts (``short_texts.py``, and the
Chinese sentences of this package, a script that its tokenizer hardly knows) with three seeds,
Adam, warm-up and a constant rate. ``sound``: 3 epochs at 1e-3. ``broken``: the same at 20 times
that rate. ``overfitted``: 16 of the rows, 40 epochs at 1e-3, one seed. Each is diagnosed as a user
would, by three probes, on 40 held-out rows of 40 groups, with the embedded model as base. A case
takes half a minute of CPU, and is a line of ``.cache/generated_text/lines.jsonl`` when it is done.

Criteria, fixed before the first recorded run:

- ``broken_red``: at least .95 of the broken models whose held-out loss is above the base model's;
- ``broken_green``: none of them;
- ``sound_red``: none of the sound models that write English;
- ``sound_green``: at least .8 of them.

What overfitted models get is told and has no criterion: to recite training text after any prompt
is about as surprising as people's text, and other lights are for that. Nor have sound Chinese ones:
3 epochs do not teach this model to write whole characters.
"""

import argparse
import hashlib
import json
import random
import tempfile
import time
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from record import write_record
from short_texts import docstrings, factbook, sha256_of

from heldout.core.measurement import Measurement
from heldout.core.row import Row
from heldout.jobs.demo import MODEL
from heldout.jobs.diagnosing.diagnose import diagnose
from heldout.jobs.kit.checkpoints import save_model
from heldout.lm.load import load_model
from heldout.lm.tokenize import collate, tokenize_row

ROOT = Path(__file__).resolve().parents[1]
LINES = Path(".cache/generated_text/lines.jsonl")
LANGUAGE = ROOT / "src" / "heldout" / "core" / "languages" / "zh"
RATE, BATCH, MAX_LENGTH = 1e-3, 8, 256
NUM_TRAIN, NUM_HELDOUT = 64, 40
SHORTEST_CHINESE = 50  # characters
ENGLISH = ("factbook", "docstrings")
PROBES = ("heldout_loss", "repetition", "generated_loss")


@dataclass(frozen=True)
class Case:
    """One training and its diagnosis."""

    text: str
    kind: str  # sound, broken or overfitted
    seed: int

    @property
    def rate(self) -> float:
        return 20 * RATE if self.kind == "broken" else RATE

    @property
    def epochs(self) -> int:
        return 40 if self.kind == "overfitted" else 3

    @property
    def num_rows(self) -> int:
        return 16 if self.kind == "overfitted" else NUM_TRAIN


def chinese(seed: int) -> dict[str, list[Row]]:
    """Two sentences of the tables a row; each row is a group."""
    tables = [tomllib.loads(f.read_text(encoding="utf-8")) for f in sorted(LANGUAGE.glob("*.toml"))]
    sentences = sorted(
        {s for table in tables for s in table.values() if len(s) > 24 and "{" not in s}
    )
    random.Random(f"chinese-{seed}").shuffle(sentences)
    pairs = [a + b for a, b in zip(sentences[::2], sentences[1::2], strict=False)]
    texts = [text for text in pairs if len(text) >= SHORTEST_CHINESE]
    rows = [
        Row(number, ({"role": "text", "content": text},), str(number))
        for number, text in enumerate(texts[: NUM_TRAIN + NUM_HELDOUT])
    ]
    return {"train": rows[:NUM_TRAIN], "test": rows[NUM_TRAIN:]}


TEXTS: dict[str, Callable[[int], dict[str, list[Row]]]] = {
    "factbook": factbook,
    "docstrings": docstrings,
    "chinese": chinese,
}
CASES = [
    *(
        Case(text, kind, seed)
        for seed in range(3)
        for text in TEXTS
        for kind in ("sound", "broken")
    ),
    *(Case(text, "overfitted", 0) for text in TEXTS),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.tiny:
        for case in CASES[:2]:
            print(json.dumps(run_case(case, most_steps=4)))
        return
    end = time.monotonic() + 60 * options.minutes
    done = finished()
    for case in CASES:
        if key(case) not in done and time.monotonic() < end:
            line = run_case(case)
            LINES.parent.mkdir(parents=True, exist_ok=True)
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(line["case"], line["light"], line["sentence"], flush=True)
    done = finished()
    lines = [done[key(case)] for case in CASES if key(case) in done]
    print(f"{len(lines)} of {len(CASES)} cases are done.")
    if lines:
        print(json.dumps(figures(lines), indent=1))
    if options.record:
        assert len(lines) == len(CASES), "not all cases are done: run with --minutes"
        digest = hashlib.sha256("".join(line["rows_sha256"] for line in lines).encode())
        path = write_record(
            "generated_text",
            figures(lines),
            table=lines,
            seeds=[0, 1, 2],
            data_sha256=digest.hexdigest(),
            command="python benchmarks/generated_text.py --minutes 60 --record",
            note=options.note,
        )
        print(f"wrote {path}")


def figures(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Shares, and the contrasts nearest to 0 of each kind."""

    def of(kind: str, *texts: str) -> list[dict[str, Any]]:
        return [
            line
            for line in lines
            if line["case"]["kind"] == kind and (not texts or line["case"]["text"] in texts)
        ]

    broken = [line for line in of("broken") if line["heldout_nll"] > line["base_nll"]]
    chosen = {
        "broken_red": [line["light"] == "red" for line in broken],
        "broken_green": [line["light"] == "green" for line in broken],
        "sound_red": [line["light"] == "red" for line in of("sound", *ENGLISH)],
        "sound_green": [line["light"] == "green" for line in of("sound", *ENGLISH)],
        "sound_chinese_red": [line["light"] == "red" for line in of("sound", "chinese")],
        "overfitted_red": [line["light"] == "red" for line in of("overfitted")],
    }
    found: dict[str, float] = {}
    for name, values in chosen.items():
        if values:
            found[name] = sum(values) / len(values)
            found[f"{name}_cases"] = len(values)
    for name, kind, nearest in (("broken", broken, min), ("sound", of("sound", *ENGLISH), max)):
        contrasts = [line["contrast"] for line in kind if line["contrast"] is not None]
        if contrasts:
            found[f"{name}_contrast_nearest_to_0"] = nearest(contrasts)
    return found


def run_case(case: Case, most_steps: int | None = None) -> dict[str, Any]:
    begin = time.process_time()
    rows = TEXTS[case.text](case.seed)
    train, heldout = rows["train"][: case.num_rows], one_a_group(rows["test"])
    loaded = load_model(MODEL, device="cpu")
    tune(loaded.model, loaded.tokenizer, train, case, most_steps)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(loaded.model, loaded.tokenizer, folder / "model")
        for name, of_part in (("train", train), ("heldout", heldout)):
            lines = "".join(json.dumps(entry_of(row)) + "\n" for row in of_part)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        result = diagnose(
            folder / "model",
            train=folder / "train.jsonl",
            heldout=folder / "heldout.jsonl",
            base=MODEL,
            probes=PROBES,
            settings=("data.group=group", f"data.max_length={MAX_LENGTH}"),
        )
    measured = {m.name: m for m in result.measurements if isinstance(m, Measurement)}
    written = measured.get("generated_nll_best")
    beside = written.contrasts["human"] if written else None
    verdict = result.verdict.verdicts["generation"]
    return {
        "key": key(case),
        "case": asdict(case),
        "light": verdict.color,
        "sentence": verdict.sentence,
        "contrast": beside.difference if beside else None,
        "low": beside.interval.low if beside else None,
        "high": beside.interval.high if beside else None,
        "heldout_nll": measured["test_nll_best"].value,
        "base_nll": measured["test_nll_base"].value,
        "samples": [sample.best[:80] for sample in result.samples[:2]],
        "rows_sha256": sha256_of(train + heldout),
        "cpu_seconds": time.process_time() - begin,
    }


def one_a_group(rows: list[Row]) -> list[Row]:
    """The first row of each of ``NUM_HELDOUT`` groups."""
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.group, row)
    return list(first.values())[:NUM_HELDOUT]


def entry_of(row: Row) -> dict[str, str]:
    """A row as it stands in a data file."""
    names = {"text": "text", "prompt": "prompt", "completion": "completion"}
    return {"group": row.group, **{names[m["role"]]: m["content"] for m in row.messages}}


def tune(model: Any, tokenizer: Any, rows: list[Row], case: Case, most_steps: int | None) -> None:
    """All weights, a tenth of the steps of warm-up, gradients of norm 1 at most."""
    torch.manual_seed(case.seed)
    windows = [
        window for row in rows for window in tokenize_row(row, tokenizer, MAX_LENGTH).windows
    ]
    order = random.Random(case.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=case.rate, weight_decay=0.01)
    total = case.epochs * (len(windows) // BATCH)
    step = 0
    model.train()
    for _ in range(case.epochs):
        order.shuffle(windows)
        for start in range(0, len(windows) - BATCH + 1, BATCH):
            if most_steps is not None and step == most_steps:
                break
            batch = collate(windows[start : start + BATCH], tokenizer.pad_token_id)
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.param_groups[0]["lr"] = case.rate * min(1.0, 10 * (step + 1) / total)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    model.eval()


def finished() -> dict[str, dict[str, Any]]:
    if not LINES.exists():
        return {}
    lines = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    return {line["key"]: line for line in lines}


def key(case: Case) -> str:
    """Of the case, and of the code that makes and judges it."""
    sources = [
        Path(__file__),
        *(ROOT / "src" / "heldout" / name for name in (
            "probes/generated_loss.py", "diagnosis/primary.py", "diagnosis/harms.py",
            "core/stats.py", "lm/measuring/generations.py",
        )),
    ]  # fmt: skip
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    return f"{case.text} {case.kind} {case.seed} {digest}"


if __name__ == "__main__":
    main()
