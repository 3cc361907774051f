"""Planted duplicates and leaks among 100,000 real passages: recall and precision of the check.

Of 100,000 passages of 60 to 260 words of real text, 8,000 are training rows that a held-out row or
another training row was made from: copied with other case and white space (exact), with 5 % of the
words replaced, left out or put in (near), or sharing 50 words in a row inside other text (span).

Recall is the share of planted pairs that are listed. Real text repeats itself too, so a near pair
that was not planted counts as right where three quarters of the words of both texts are the same
by an alignment of words (difflib), which knows nothing of shingles, and as wrong otherwise.

    python benchmarks/leaks.py [--rows 100000] [--write]
"""

import argparse
import difflib
import hashlib
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from real_text import passages
from record import write_record

from heldout.core.check import CheckResult
from heldout.jobs.check import check

NUM_EACH = 1000  # of each kind, between train and held-out, and again inside train
EDITED = 0.05
ALIKE = 0.75  # aligned words of an unplanted near pair that make it right


def edited(words: list[str], rng: random.Random, vocabulary: list[str]) -> list[str]:
    """A twentieth of the words replaced, left out, or with another one put in behind."""
    words = list(words)
    for place in sorted(rng.sample(range(len(words)), round(EDITED * len(words))), reverse=True):
        action = rng.choice(("replace", "leave out", "put in"))
        if action == "leave out":
            del words[place]
        else:
            words[place + (action == "put in") : place + 1] = [rng.choice(vocabulary)]
    return words


def case_and_space(words: list[str], rng: random.Random) -> str:
    text = rng.choice(("\n", "  ", "\t")).join(words)
    return rng.choice((text.upper, text.lower, text.title))()


def with_span(words: list[str], host: list[str], rng: random.Random) -> list[str]:
    start, place = rng.randrange(len(words) - 49), rng.randrange(len(host))
    return [*host[:place], *words[start : start + 50], *host[place:]]


def plant(texts: list[str], seed: int) -> tuple[list[str], list[str], dict]:
    """Training rows, held-out rows and the planted pairs by what and kind."""
    rng = random.Random(seed)
    vocabulary = " ".join(texts[:200]).split()
    num_planted = 3 * NUM_EACH
    num_clean = 2000
    hosts = [text.split() for text in texts[-2 * NUM_EACH :]]
    train = texts[: -2 * NUM_EACH - num_clean]
    heldout = texts[-2 * NUM_EACH - num_clean : -2 * NUM_EACH]
    sources = rng.sample(range(len(train)), 2 * num_planted)
    planted: dict[tuple[str, str], set] = {}
    for number, row in enumerate(sources):
        what = "leaks" if number < num_planted else "duplicates"
        kind = ("exact", "near", "span")[number % 3]
        words = train[row].split()
        if kind == "exact":
            text = case_and_space(words, rng)
        elif kind == "near":
            text = " ".join(edited(words, rng, vocabulary))
        else:
            text = " ".join(with_span(words, hosts.pop(), rng))
        into = heldout if what == "leaks" else train
        planted.setdefault((what, kind), set()).add((row, len(into)))
        into.append(text)
    return train, heldout, planted


def listed(result: CheckResult) -> dict[tuple[str, str], set]:
    found: dict[tuple[str, str], set] = {}
    for what, pairs in (("leaks", result.leaks), ("duplicates", result.duplicates)):
        for pair in pairs:
            if pair.part == "train":
                rows = (pair.first.row, pair.second.row)
                found.setdefault((what, pair.kind), set()).add(rows)
    return found


def alike(a: str, b: str) -> bool:
    first, second = a.lower().split(), b.lower().split()
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return sum(block.size for block in blocks) >= ALIKE * max(len(first), len(second))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    texts = list(passages(options.rows, seed=options.seed))
    train, heldout, planted = plant(texts, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, rows in (("train", train), ("heldout", heldout)):
            paths.append(Path(folder) / f"{name}.jsonl")
            with paths[-1].open("w", encoding="utf-8") as file:
                for text in rows:
                    file.write(json.dumps({"text": text}) + "\n")
        digest = hashlib.sha256(paths[0].read_bytes() + paths[1].read_bytes()).hexdigest()
        start = time.perf_counter()
        result = check(paths[0], heldout=[paths[1]], max_listed=10**6)
        seconds = time.perf_counter() - start
    found = listed(result)
    table = []
    for (what, kind), pairs in sorted(planted.items()):
        # A planted span may lie in rows that are alike altogether, which is told as near.
        of_any_kind = set().union(
            *(found.get((what, other), set()) for other in ("exact", "near", "span"))
        )
        hit = pairs & (found.get((what, kind), set()) if kind != "span" else of_any_kind)
        others = found.get((what, kind), set()) - pairs
        other_rows = heldout if what == "leaks" else train
        right = len(others)
        if kind == "near":
            sample = random.Random(1).sample(sorted(others), min(2000, len(others)))
            share = sum(alike(train[a], other_rows[b]) for a, b in sample) / max(1, len(sample))
            right = share * len(others)
        total = len(hit) + len(others)
        table.append(
            {
                "what": what,
                "kind": kind,
                "planted": len(pairs),
                "found": len(hit),
                "recall": len(hit) / len(pairs),
                "listed_besides": len(others),
                "of_these_right": round(right),
                "precision": (len(hit) + right) / total if total else 1.0,
            }
        )
        print(table[-1], flush=True)

    def recall(kind: str) -> float:
        rows = [row for row in table if row["kind"] == kind]
        return sum(row["found"] for row in rows) / sum(row["planted"] for row in rows)

    near = [row for row in table if row["kind"] == "near"]
    num_near = sum(row["found"] + row["listed_besides"] for row in near)
    figures = {
        "recall_exact": recall("exact"),
        "recall_near": recall("near"),
        "recall_span": recall("span"),
        "precision_near": sum(row["found"] + row["of_these_right"] for row in near) / num_near,
        "rows": len(train) + len(heldout),
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(figures, indent=2))
    if options.write:
        write_record(
            "leaks",
            figures,
            table=table,
            seeds=[options.seed],
            data_sha256=digest,
            note="precision_near: pairs that were planted, or of whose words an alignment finds "
            "three quarters the same; exact pairs and spans of 50 words are right by definition",
        )


if __name__ == "__main__":
    main()
