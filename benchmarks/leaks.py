"""Planted duplicates and leaks among 100,000 real passages: recall and precision of the check.

Of 100,000 passages of 60 to 260 words of real text, 6,000 are training rows that a held-out row or
another training row was made from: copied with other case and white space (exact), with 5 % of the
words replaced, left out or put in (near), or giving 50 words in a row to other text (span).

Twice: on passages of which none shares eight words in a row with an earlier one (of a quarter of
all such sequences, by a plain set), so that what was planted is all there is; and on passages as
they stand, where real text repeats itself: headers, licenses, generated code. There a planted pair
may be told of another copy of its source, so what counts beside the pair is whether the held-out
row is told at all; and a planted span may be boilerplate, which the check sets apart on purpose. It
counts as such where 25 of its words in a row stand in ten rows or more, by a plain count.

A near pair that was not planted is judged by an alignment of words (difflib), which knows nothing
of shingles. ``precision`` wants two thirds of the longer text aligned. Texts that overlap by less
can still have half of their words in common, which is what the check promises, so
``precision_half`` wants aligned what is half of the words of the two, those in both counted once.

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
import zlib
from collections.abc import Iterator
from pathlib import Path

from real_text import passages
from record import write_record

from heldout.core.results.check import CheckResult
from heldout.jobs.checking.check import check

NUM_EACH = 1000  # of each kind, between train and held-out, and again inside train
EDITED = 0.05
ALIKE = 2 / 3  # aligned words, of those of the longer text, that make an unplanted pair right
HALF = 0.5  # the same, of the words of both together
RUN, FRAME_ROWS = 25, 10  # words in a row, and rows that hold them, that make a span boilerplate


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


def in_host(span: list[str], host: list[str], rng: random.Random) -> list[str]:
    place = rng.randrange(len(host))
    return [*host[:place], *span, *host[place:]]


def plant(texts: list[str], seed: int) -> tuple[list[str], list[str], dict, dict]:
    """Training rows, held-out rows, the planted pairs by what and kind, and the planted spans."""
    rng = random.Random(seed)
    vocabulary = " ".join(texts[:200]).split()
    num_planted = 3 * NUM_EACH
    num_clean = 2000
    hosts = [text.split() for text in texts[-2 * NUM_EACH :]]
    train = texts[: -2 * NUM_EACH - num_clean]
    heldout = texts[-2 * NUM_EACH - num_clean : -2 * NUM_EACH]
    sources = rng.sample(range(len(train)), 2 * num_planted)
    planted: dict[tuple[str, str], set] = {}
    spans: dict[tuple[str, int], list[str]] = {}  # by what and the row they were put into
    for number, row in enumerate(sources):
        what = "leaks" if number < num_planted else "duplicates"
        kind = ("exact", "near", "span")[number % 3]
        words = train[row].split()
        if kind == "exact":
            text = case_and_space(words, rng)
        elif kind == "near":
            text = " ".join(edited(words, rng, vocabulary))
        else:
            start = rng.randrange(len(words) - 49)
            span = words[start : start + 50]
            text = " ".join(in_host(span, hosts.pop(), rng))
        into = heldout if what == "leaks" else train
        if kind == "span":
            spans[what, len(into)] = span
        planted.setdefault((what, kind), set()).add((row, len(into)))
        into.append(text)
    return train, heldout, planted, spans


def framed(spans: dict[tuple[str, int], list[str]], rows: list[str]) -> set[tuple[str, int]]:
    """Those of the spans of which a run of words stands in many rows."""

    def runs(words: list[str]) -> set[str]:
        words = [word.lower() for word in words]
        return {" ".join(words[n : n + RUN]) for n in range(len(words) - RUN + 1)}

    num_rows = dict.fromkeys(set().union(*map(runs, spans.values())), 0)
    for row in rows:
        for run in runs(row.split()):
            if run in num_rows:
                num_rows[run] += 1
    return {
        key for key, span in spans.items() if max(num_rows[run] for run in runs(span)) >= FRAME_ROWS
    }


def listed(result: CheckResult) -> dict[tuple[str, str], set]:
    found: dict[tuple[str, str], set] = {}
    for what, pairs in (("leaks", result.leaks), ("duplicates", result.duplicates)):
        for pair in pairs:
            if pair.part == "train":
                rows = (pair.first.row, pair.second.row)
                found.setdefault((what, pair.kind), set()).add(rows)
    return found


def alignment(a: str, b: str) -> tuple[float, float]:
    """Aligned words as a share of the longer text, and of both together."""
    first, second = a.lower().split(), b.lower().split()
    blocks = difflib.SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    num = sum(block.size for block in blocks)
    return num / max(len(first), len(second)), num / (len(first) + len(second) - num)


def unlike(texts: Iterator[str], num: int) -> list[str]:
    """Passages that share no sampled sequence of eight words with an earlier one."""
    known: set[int] = set()
    kept = []
    for text in texts:
        words = text.lower().split()
        grams = {zlib.crc32(" ".join(words[n : n + 8]).encode()) for n in range(len(words) - 7)}
        grams = {gram for gram in grams if gram % 4 == 0}
        if known.isdisjoint(grams):
            known |= grams
            kept.append(text)
            if len(kept) == num:
                break
    return kept


def measure(corpus: str, texts: list[str], seed: int) -> tuple[list[dict], float, str]:
    """The table of one corpus, seconds, and the hash of its rows."""
    train, heldout, planted, spans = plant(texts, seed)
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
    frames = framed(spans, train + heldout)
    table = []
    for (what, kind), pairs in sorted(planted.items()):
        told = set().union(*(found.get((what, each), set()) for each in ("exact", "near", "span")))
        rows_told = {row for _, row in told}
        hit = pairs & found.get((what, kind), set())
        others = found.get((what, kind), set()) - pairs
        own = [row for _, row in pairs if (what, row) not in frames]
        entry = {
            "corpus": corpus,
            "what": what,
            "kind": kind,
            "planted": len(pairs),
            "recall": len(hit) / len(pairs),
            "recall_of_rows": sum(row in rows_told for _, row in pairs) / len(pairs),
            "no_boilerplate": len(own),
            "recall_of_no_boilerplate": sum(row in rows_told for row in own) / len(own),
            "listed": len(hit) + len(others),
            "not_planted": len(others),
        }
        if kind == "near":
            other_rows = heldout if what == "leaks" else train
            sample = random.Random(1).sample(sorted(others), min(1000, len(others)))
            shares = [alignment(train[a], other_rows[b]) for a, b in sample] or [(1.0, 1.0)]
            for name, place, least in (("precision", 0, ALIKE), ("precision_half", 1, HALF)):
                right = sum(each[place] >= least for each in shares) / len(shares)
                entry[name] = (len(hit) + right * len(others)) / entry["listed"]
        table.append(entry)
        print(entry, flush=True)
    return table, seconds, digest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    many = passages(100 * options.rows, seed=options.seed)
    table, seconds, digest = measure("unlike", unlike(many, options.rows), options.seed)
    as_it_stands = list(passages(options.rows, seed=options.seed))
    raw_table, _, _ = measure("as it stands", as_it_stands, options.seed)

    def share(of: list[dict], kind: str, column: str, weight: str) -> float:
        rows = [row for row in of if row["kind"] == kind]
        return sum(row[column] * row[weight] for row in rows) / sum(row[weight] for row in rows)

    figures = {
        "recall_exact": share(table, "exact", "recall", "planted"),
        "recall_near": share(table, "near", "recall", "planted"),
        "recall_span": share(table, "span", "recall", "planted"),
        "precision_near": share(table, "near", "precision", "listed"),
        "as_it_stands_recall_exact": share(raw_table, "exact", "recall_of_rows", "planted"),
        "as_it_stands_recall_near": share(raw_table, "near", "recall_of_rows", "planted"),
        "as_it_stands_recall_span": share(raw_table, "span", "recall_of_rows", "planted"),
        "as_it_stands_recall_span_no_boilerplate": share(
            raw_table, "span", "recall_of_no_boilerplate", "no_boilerplate"
        ),
        "as_it_stands_precision_near": share(raw_table, "near", "precision", "listed"),
        "as_it_stands_precision_near_half": share(raw_table, "near", "precision_half", "listed"),
        "rows": options.rows + sum(row["planted"] for row in table) - 2 * NUM_EACH,
        "seconds": seconds,
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }
    print(json.dumps(figures, indent=2))
    if options.write:
        write_record(
            "leaks",
            figures,
            table=table + raw_table,
            seeds=[options.seed],
            data_sha256=digest,
            note="recall_* and precision_near: passages unlike one another, planted pairs as the "
            "truth; as_it_stands_*: see benchmarks/leaks.py; peak_gb holds the benchmark's own",
        )


if __name__ == "__main__":
    main()
