"""What belongs together ends in one part, and what does not stays apart: planted, kind by kind.

Real passages of 40 to 200 words, of which none shares eight words in a row with another. From some
of them a second row is made: under another surface, with words replaced, inside a longer row, as
the beginning of a longer conversation, with the same prompt or the same long answer. All rows are
split as ``heldout fit`` does, and the truth is what was planted, not what the check says.

- ``recall_worst``: planted pairs that end in one group, of the kind with the fewest; words replaced
  apart, 10 and 15 % of which have figures of their own.
- ``false_join``: rows that end in a group with a row they have nothing to do with, of the worst
  corpus of unrelated rows or of rows that share boilerplate alone.
- ``largest_group_share``: rows in the largest group, of the worst boilerplate corpus.
- ``parts_that_fail_check``: of the pairs of parts that fit's split, its folds, --write-clean and
  given validation rows deal out, those in which ``heldout check`` finds a leak.
- ``check_time_over_old``: processor seconds of ``heldout check`` on 100,000 rows over those of the
  sources in ``--old``, each in a process of its own, one after the other.

    python benchmarks/splits.py [--num 300] [--old SRC] [--write]
"""

import argparse
import hashlib
import html
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from leaks import unlike
from real_text import passages
from record import write_record

LEAST_RECALL = 0.95
"""Of the planted pairs of each kind, 5 % of the words replaced among them: what a user who holds
out one part in seven can lose without moving a loss by what is measured."""

LEAST_RECALL_REPLACED_10 = 0.9
"""The same with one word in ten replaced; with 15 % it is reported without a claim."""

MOST_FALSE_JOIN = 0.001
"""Of unrelated rows and of rows that share boilerplate alone: joins eat independent groups, of
which small data has few."""

MOST_IN_ONE_GROUP = 0.05
"""Of the rows of a boilerplate corpus: a third of what a held-out part takes by default."""

MOST_TIME_OVER_OLD = 1.2
"""Processor seconds of a check of 100,000 rows, over those of the code that saw less."""

SPEED_ROWS = 100_000


def as_text(texts: list[str]) -> list[dict]:
    return [{"text": text} for text in texts]


def replaced(text: str, share: float, rng: random.Random, vocabulary: list[str]) -> str:
    words = text.split()
    for place in rng.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = rng.choice(vocabulary)
    return " ".join(words)


def in_some_words(text: str, mark: str, share: float, rng: random.Random) -> str:
    words = text.split(" ")
    return " ".join(
        word[: len(word) // 2] + mark + word[len(word) // 2 :]
        if len(word) > 3 and rng.random() < share
        else word
        for word in words
    )


def tagged(text: str, rng: random.Random) -> str:
    plain = html.escape(text).split()
    words = [f"<b>{word}</b>" if rng.random() < 0.2 else word for word in plain]
    lines = [" ".join(words[at : at + 12]) for at in range(0, len(words), 12)]
    body = "".join(f'<p class="c{rng.randrange(9)}">{line}</p>\n' for line in lines)
    return f"<div>{body.replace(' ', '&nbsp;', 5)}</div>"


def marked(text: str, rng: random.Random) -> str:
    marks = ("**", "*", "`", "__")
    words = [
        f"{mark}{word}{mark}" if rng.random() < 0.3 else word
        for word, mark in ((word, rng.choice(marks)) for word in text.split())
    ]
    lines = [" ".join(words[at : at + 15]) for at in range(0, len(words), 15)]
    return "# " + "\n- ".join(lines)


SURFACES: dict[str, Callable[[str, random.Random], str]] = {
    "spaces before punctuation": lambda t, rng: "".join(f" {c}" if c in ".,;:!?" else c for c in t),
    "HTML tags and entities": tagged,
    "zero-width characters": lambda t, rng: in_some_words(t, rng.choice("\u200b\u200d"), 0.9, rng),
    "soft hyphens": lambda t, rng: in_some_words(t, "\u00ad", 0.9, rng),
    "hyphen and newline in words": lambda t, rng: in_some_words(t, "-\n", 0.3, rng),
    "newline in words": lambda t, rng: in_some_words(t, "\n", 0.3, rng),
    "lines of 40 characters": lambda t, rng: "\n".join(
        t[at : at + 40] for at in range(0, len(t), 40)
    ),
    "Markdown marks": marked,
    "case and white space": lambda t, rng: rng.choice("\n\t").join(t.upper().split()),
}


Planted = tuple[list[dict], list[tuple[int, int]]]


def copies(texts: list[str], num: int, copy: Callable[[str], str]) -> Planted:
    """``num`` pairs of a text and its copy among the other texts."""
    rows = as_text([*texts, *(copy(text) for text in texts[:num])])
    return rows, [(place, len(texts) + place) for place in range(num)]


def chinese(num: int, seed: int) -> list[str]:
    """Made of 800 characters, frequent ones more often."""
    rng = random.Random(seed)
    characters = [chr(0x4E00 + 7 * n) for n in range(800)]
    weights = [1 / (n + 10) for n in range(800)]
    return ["".join(rng.choices(characters, weights, k=rng.randint(60, 300))) for _ in range(num)]


def pairs(texts: list[str], num: int, seed: int) -> Iterator[tuple[str, Planted]]:
    """Rows and planted pairs of each kind."""
    rng = random.Random(seed)
    vocabulary = sorted({word for text in texts[:500] for word in text.split()})
    without_tags = [text for text in texts if not set("<>&") & set(text)]
    for name, surface in SURFACES.items():
        chosen = without_tags if surface is tagged else texts
        yield name, copies(chosen, num, lambda text, surface=surface: surface(text, rng))
    for share in (0.05, 0.1, 0.15):
        name = f"{100 * share:.0f} % of the words replaced"
        yield name, copies(texts, num, lambda t, share=share: replaced(t, share, rng, vocabulary))
    yield "inside a longer row", copies(texts, num, lambda text: inside(text, rng))
    yield (
        "around a shorter row",
        copies(texts, num, lambda text: f"{text} {rng.choice(texts)}"[:-9]),
    )
    yield "beginning of a conversation", conversations(texts, num)
    yield "one prompt", asked(texts, num, rng)
    yield "one long answer", answered(texts, num, rng)
    han = chinese(len(texts), seed)
    characters = sorted(set("".join(han[:50])))
    yield (
        "Chinese, 5 % of the characters replaced",
        copies(
            han, num, lambda text: "".join(replaced(" ".join(text), 0.05, rng, characters)[::2])
        ),
    )


def inside(text: str, rng: random.Random) -> str:
    words = text.split()
    size = rng.randint(15, len(words) - 5)
    start = rng.randrange(len(words) - size)
    return " ".join(words[start : start + size])


def talk(*turns: str) -> dict:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]}


def conversations(texts: list[str], num: int) -> Planted:
    rows = []
    for text in texts:
        words = text.split()
        cuts = (0, 6, 14, 20, len(words))
        turns = [" ".join(words[a:b]) for a, b in itertools.pairwise(cuts)]
        rows.append(talk(*turns))
    shorter = [talk(*(turn["content"] for turn in row["messages"][:2])) for row in rows[:num]]
    return [*rows, *shorter], [(place, len(rows) + place) for place in range(num)]


def answer_to(prompt: str, answer: str) -> dict:
    return {"prompt": prompt, "completion": answer}


def asked(texts: list[str], num: int, rng: random.Random) -> Planted:
    """Prompts of 3 to 12 words; pairs have the same one and other answers."""
    cut = [text.split() for text in texts]
    prompts = [f"{' '.join(words[: rng.randint(2, 11)])} {n}?" for n, words in enumerate(cut)]
    rows = [answer_to(p, " ".join(w[12:])) for p, w in zip(prompts, cut, strict=True)]
    spare = [answer_to(prompts[n], " ".join(cut[-1 - n][:12][::-1])) for n in range(num)]
    return [*rows, *spare], [(n, len(rows) + n) for n in range(num)]


def answered(texts: list[str], num: int, rng: random.Random) -> Planted:
    """Answers of 13 to 40 words; pairs have the same one and other prompts."""
    cut = [text.split() for text in texts]
    answers = [" ".join(words[10 : 10 + rng.randint(13, 30)]) for words in cut]
    rows = [
        answer_to(f"{' '.join(w[:9])} {n}?", a)
        for n, (w, a) in enumerate(zip(cut, answers, strict=True))
    ]
    spare = [answer_to(f"{' '.join(cut[-1 - n][:10][::-1])} {n}!", answers[n]) for n in range(num)]
    return [*rows, *spare], [(n, len(rows) + n) for n in range(num)]


def corpora(texts: list[str], seed: int) -> Iterator[tuple[str, bool, list[dict]]]:
    """Rows that have nothing to do with one another, and whether they share boilerplate."""
    rng = random.Random(seed)
    yield "unrelated passages", False, as_text(texts)
    yield "unrelated Chinese", False, as_text(chinese(len(texts), seed))
    short = [" ".join(text.split()[15 : rng.randint(20, 35)]) for text in texts]
    yield "unrelated short rows", False, as_text(short)
    sums = [f"What is {a} plus {b}? It is {a + b}." for a in range(40) for b in range(100, 140)]
    yield "sums in one frame", True, as_text(sums)
    frames = [" ".join(text.split()[:60]) for text in texts if len(text.split()) > 80]
    bodies = texts[len(texts) // 3 :]
    for num in (1, 5, 20, 50):
        rows = [f"{frames[n % num]}\n\n{text}" for n, text in enumerate(bodies)]
        yield f"{num} headers", True, as_text(rows)
        rows = [f"{text}\n{frames[n % num]}" for n, text in enumerate(bodies)]
        yield f"{num} footers", True, as_text(rows)
    half = [f"{frames[0]} {text}" if n % 3 == 0 else text for n, text in enumerate(bodies)]
    yield "a header on a third", True, as_text(half)
    around = [" ".join(frames[0].split()[:40]), " ".join(frames[1].split()[:40])]
    yield (
        "a short text between two frames",
        True,
        as_text([f"{around[0]} {' '.join(text.split()[:25])} {around[1]}" for text in bodies]),
    )
    for num in (1, 4, 15):
        orders = [f"{' '.join(frame.split()[:12])}:" for frame in frames[:num]]
        rows = [answer_to(orders[n % num], text) for n, text in enumerate(bodies)]
        yield f"{num} instructions", True, rows
    yield (
        "yes or no",
        True,
        [answer_to(text, rng.choice(("Yes.", "No.", "I do not know."))) for text in bodies],
    )
    refusal = " ".join(frames[2].split()[:30])
    yield (
        "one refusal",
        True,
        [
            answer_to(text, refusal if n % 20 == 0 else bodies[-n][:80])
            for n, text in enumerate(bodies)
        ],
    )
    system = {"role": "system", "content": frames[3]}
    yield (
        "one system prompt and greeting",
        True,
        [
            {
                "messages": [
                    system,
                    *talk("Hello", "Hello! How can I help?", text[:200], text[200:])["messages"],
                ]
            }
            for text in bodies
            if len(text) > 300
        ],
    )


def written(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def groups_of(rows: list[dict], folder: Path) -> list[str]:
    """The group of each row after the split of ``heldout fit``."""
    from heldout.core.recipe import DataSection
    from heldout.data.columns import read_rows
    from heldout.data.split import split_rows

    split = split_rows(read_rows(str(written(folder / "rows.jsonl", rows))).rows, DataSection())
    names = {row.index: row.group for row in split.train + split.validation + split.test}
    return [names[place] for place in range(len(rows))]


def mixture(texts: list[str], seed: int) -> list[dict]:
    """Pairs of all kinds with frames that nine to thirteen rows hold, as prompts with answers."""
    rng = random.Random(seed)
    vocabulary = " ".join(texts[:50]).split()
    rows = []
    for n, text in enumerate(texts):
        words = text.split()
        prompt, answer = f"{' '.join(words[:8])} {n}?", " ".join(words[8:])
        rows.append(answer_to(prompt, answer))
        kind = n % 8
        if kind == 0:
            surface = SURFACES[rng.choice(list(SURFACES))]
            rows.append(answer_to(prompt, surface(answer, rng)))
        elif kind == 1:
            rows.append(answer_to(prompt[:-3], replaced(answer, 0.1, rng, vocabulary)))
        elif kind == 2:
            rows += [answer_to(prompt, " ".join(rng.sample(vocabulary, 9))) for _ in range(3)]
        elif kind == 3:
            rows.append(answer_to(" ".join(rng.sample(vocabulary, 7)), answer))
        elif kind == 4 and n % 80 == 4:
            frame = " ".join(texts[-1 - n].split()[:60])
            rows += [
                answer_to(
                    " ".join(rng.sample(vocabulary, 9)),
                    f"{frame} {' '.join(rng.sample(vocabulary, 50))}",
                )
                for _ in range(rng.randint(9, 14))
            ]
    rng.shuffle(rows)
    return rows


def dealt_out(texts: list[str], seed: int, folder: Path) -> list[dict]:
    """Each pair of parts that is dealt out, with the leaks that a check finds between them."""
    from heldout.core.recipe import DataSection
    from heldout.data.columns import read_rows
    from heldout.data.split import folds, split_rows
    from heldout.jobs.checking.check import check

    table = []

    def look(name: str, train: Path, heldout: Path) -> None:
        result = check(train, heldout=[heldout])
        table.append({"parts": name, "rows": result.rows, "leaks": result.num_leaks})
        print(table[-1], flush=True)

    def fields(part: list) -> list[dict]:
        return [answer_to(*(m["content"] for m in row.messages)) for row in part]

    rows = mixture(texts, seed)
    path = written(folder / "all.jsonl", rows)
    data = DataSection()
    read = read_rows(str(path)).rows
    split = split_rows(read, data)
    paths = {
        name: written(folder / f"{name}.jsonl", fields(part))
        for name, part in (
            ("train", split.train),
            ("validation", split.validation),
            ("test", split.test),
        )
    }
    for other in ("validation", "test"):
        look(f"split: train, {other}", paths["train"], paths[other])
    given = split_rows(read[100:], data, {"validation": read[:100]})
    look(
        "given validation rows",
        written(folder / "given.jsonl", fields(given.train)),
        written(folder / "held.jsonl", fields(given.validation)),
    )
    few = split_rows(read[:110], data)
    for number, fold in enumerate(folds(few.train, 5)):
        look(
            f"fold {number + 1}",
            written(folder / "fold.jsonl", fields(fold.train)),
            written(folder / "out.jsonl", fields(fold.held_out)),
        )
    check(path, write_clean=folder / "clean")
    for other in ("validation", "test"):
        look(
            f"clean copy: train, {other}",
            folder / "clean/train.jsonl",
            folder / f"clean/{other}.jsonl",
        )
    check(
        written(folder / "rest.jsonl", rows[100:]),
        heldout=[written(folder / "first.jsonl", rows[:100])],
        write_clean=folder / "gives-way",
    )
    look(
        "clean copy, held-out rows given",
        folder / "gives-way/train.jsonl",
        folder / "gives-way/heldout.jsonl",
    )
    return table


CHECK = """
import sys, time
from heldout import check
start = time.process_time()
check(sys.argv[1])
print(time.process_time() - start)
"""


def seconds_of(sources: str, path: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": sources, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    seconds = float(done.stdout.splitlines()[-1])
    print(sources, seconds, flush=True)
    return seconds


def time_over_old(old: str, num: int, seed: int, folder: Path) -> dict[str, float]:
    texts = passages(num, seed=seed, words=(60, 260))
    path = written(folder / "many.jsonl", as_text(list(texts)))
    own = str(Path(__file__).parents[1] / "src")
    ours, theirs = seconds_of(own, path), seconds_of(old, path)
    return {
        "check_rows": num,
        "check_seconds": ours,
        "check_seconds_old": theirs,
        "check_time_over_old": ours / theirs,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=300, help="planted pairs of each kind")
    parser.add_argument("--rows", type=int, default=1500, help="rows of each corpus")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--old", default="", help="sources to compare the speed of check with")
    parser.add_argument("--speed-rows", type=int, default=SPEED_ROWS)
    parser.add_argument("--write", action="store_true", help="record the result")
    options = parser.parse_args()
    texts = unlike(passages(50 * options.rows, seed=options.seed, words=(40, 200)), options.rows)
    table: list[dict] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (rows, planted) in pairs(texts, options.num, options.seed):
            groups = groups_of(rows, folder)
            recall = sum(groups[a] == groups[b] for a, b in planted) / len(planted)
            table.append({"kind": kind, "planted": len(planted), "recall": recall})
            print(table[-1], flush=True)
        for kind, is_boilerplate, rows in corpora(texts, options.seed):
            groups = groups_of(rows, folder)
            sizes = Counter(groups)
            joined = sum(sizes[group] > 1 for group in groups) / len(rows)
            entry = {"kind": kind, "rows": len(rows), "false_join": joined}
            if is_boilerplate:
                entry["largest_group_share"] = max(sizes.values()) / len(rows)
            table.append(entry)
            print(entry, flush=True)
        parts = dealt_out(texts[:800], options.seed, folder)
        speed = (
            time_over_old(options.old, options.speed_rows, options.seed, folder)
            if options.old
            else {}
        )
    recall_of = {each["kind"]: each["recall"] for each in table if "recall" in each}
    apart = {share: recall_of.pop(f"{share} % of the words replaced") for share in (10, 15)}
    figures = {
        "recall_worst": min(recall_of.values()),
        "recall_replaced_10": apart[10],
        "recall_replaced_15": apart[15],
        "false_join": max(each["false_join"] for each in table if "false_join" in each),
        "largest_group_share": max(each.get("largest_group_share", 0) for each in table),
        "parts_that_fail_check": sum(each["leaks"] > 0 for each in parts),
        "parts_checked": len(parts),
        **speed,
    }
    passed = {
        "recall_worst": figures["recall_worst"] >= LEAST_RECALL,
        "recall_replaced_10": figures["recall_replaced_10"] >= LEAST_RECALL_REPLACED_10,
        "false_join": figures["false_join"] <= MOST_FALSE_JOIN,
        "largest_group_share": figures["largest_group_share"] <= MOST_IN_ONE_GROUP,
        "parts_that_fail_check": figures["parts_that_fail_check"] == 0,
    }
    if speed:
        passed["check_time_over_old"] = speed["check_time_over_old"] <= MOST_TIME_OVER_OLD
    print(json.dumps(figures, indent=2))
    print("failed:", [name for name, fine in passed.items() if not fine])
    if options.write:
        write_record(
            "splits",
            figures,
            table=[*table, *parts],
            seeds=[options.seed],
            data_sha256=hashlib.sha256(
                "\n".join(texts).encode("utf-8", "surrogatepass")
            ).hexdigest(),
            note="false_join and largest_group_share are of the worst corpus; seconds are of the "
            "processor",
        )


if __name__ == "__main__":
    main()
