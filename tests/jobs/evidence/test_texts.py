"""Which rows a diagnosis samples, and in which groups."""

import json

from heldout.core.progress import Progress
from heldout.core.recipe import load_recipe
from heldout.data.shift import word_shift
from heldout.jobs.evidence.texts import texts_of_files


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(prefix, num, **fields):
    return [
        {"text": f"{prefix} number {n} of {prefix * (n % 7 + 1)} tells {n * n}.", **fields}
        for n in range(num)
    ]


def test_rows_of_a_domain_are_in_the_groups_of_their_column(tmp_path):
    train = write(tmp_path / "train.jsonl", rows_of("apple", 12, book="a"))
    heldout = write(tmp_path / "heldout.jsonl", rows_of("river", 12, book="r"))
    news = rows_of("news", 12)
    grouped = [{**row, "book": f"paper {place // 4}"} for place, row in enumerate(news)]
    domains = {
        "news": write(tmp_path / "news.jsonl", grouped),
        "plain": write(tmp_path / "plain.jsonl", news),
    }
    recipe = load_recipe("default", ["data.group=book"])
    found = texts_of_files(train, heldout, domains, recipe, 100, Progress())
    assert {row.group for row in found.domains["news"]} == {"paper 0", "paper 1", "paper 2"}
    assert len({row.group for row in found.domains["plain"]}) == 12
    assert any("plain.jsonl has no column 'book'" in warning for warning in found.warnings)
    assert not any("news.jsonl" in warning for warning in found.warnings)


def test_copies_of_a_row_are_one_group_and_no_shift(tmp_path, english_text):
    paragraphs = [" ".join(p.split()) for p in english_text.split("\n\n")]
    texts = list(dict.fromkeys(p for p in paragraphs if 200 < len(p) < 400))[:120]
    exact = [{"text": texts[0]} for _ in range(20)]
    trees = ["oak", "elm", "fir", "ash", "yew", "bay", "box", "fig", "gum", "hop"]
    near = [{"text": f"{texts[0]} Seen again at the {tree}."} for tree in trees]
    plain = [{"text": text} for text in texts]
    train = write(tmp_path / "train.jsonl", [*plain[:60], *exact, *near])
    heldout = write(tmp_path / "heldout.jsonl", [*plain[60:], plain[60], plain[60]])
    recipe = load_recipe("default")
    found = texts_of_files(train, heldout, {"other": heldout}, recipe, 400, Progress())
    copied = {row.group for row in found.train if row.text.startswith(texts[0])}
    assert copied == {found.train[0].group}
    for rows in (found.heldout, found.domains["other"]):
        assert len([row for row in rows if row.text == texts[60]]) == 3
        assert len({row.group for row in rows if row.text == texts[60]}) == 1
    assert word_shift(found.train, found.heldout).beyond_chance < 0.05
