"""heldout check end to end: library, command line, clean copies, faults, a model's view."""

import gzip
import json
import resource
import subprocess
import sys

import pytest

import heldout
from english import words
from heldout.cli.main import main
from heldout.core.errors import UserError
from heldout.core.results.check import CheckResult
from heldout.jobs.checking.check import check

WORDS = words()


def passage(number, num_words=60):
    return " ".join(WORDS[number * num_words : (number + 1) * num_words])


def write(path, rows):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def texts(path, numbers, **fields):
    return write(path, [{"text": passage(n), **fields} for n in numbers])


def near(text):
    words = text.split()
    words[20] = words[40] = "elsewhere"
    return " ".join(words)


@pytest.fixture
def leaky(tmp_path):
    """(train, held-out): exact 2-0, near 3-1, a span of row 4 in 2, a short piece of row 5 in 3."""
    train = texts(tmp_path / "train.jsonl", range(100))
    span = " ".join([*WORDS[20000:20080], *passage(4).split()[2:56], *WORDS[20100:20190]])
    short = " ".join(passage(5).split()[10:30])
    rows = [passage(2).upper(), near(passage(3)), span, short, passage(500)]
    return train, write(tmp_path / "heldout.jsonl", [{"text": text} for text in rows])


def test_leaks_of_each_kind(leaky):
    train, heldout = leaky
    found = check(train, heldout=[heldout])
    assert [(p.kind, p.first.row, p.second.row) for p in found.leaks] == [
        ("exact", 2, 0),
        ("near", 3, 1),
        ("span", 4, 2),
        ("span", 5, 3),
    ]
    assert found.counts["leaked_heldout_rows"] == 4
    assert found.num_leaks == 4
    span = found.leaks[2]
    assert span.shared_tokens == 54
    for excerpt in (span.first, span.second):
        start, stop = excerpt.shared
        assert excerpt.text[start:stop] == " ".join(passage(4).split()[2:56])
    assert span.second.where == f"{heldout} line 3"
    assert "4 of 5 held-out rows leak" in found.headline
    assert found.leak_map["exact"] == [(0.02, 0.0)]


def test_the_name_in_the_package_is_the_job():
    assert heldout.check is check


def test_every_row_of_a_leak_is_told(tmp_path):
    train = texts(tmp_path / "train.jsonl", [0, 1, 0, 0, 2])
    held = texts(tmp_path / "held.jsonl", [7, 0, 0])
    found = check(train, heldout=[held])
    assert {p.first.row for p in found.leaks} == {0, 2, 3}
    assert {p.second.row for p in found.leaks} == {1, 2}
    assert [(p.part, p.first.row, p.second.row) for p in found.duplicates] == [
        ("train", 0, 2),
        ("train", 0, 3),
        ("heldout", 1, 2),
    ]
    assert found.distinct_rows == 3
    assert found.effective_rows == pytest.approx(25 / (9 + 1 + 1))


def test_groups_on_both_sides(tmp_path):
    rows = [{"text": passage(n), "author": f"a{n % 10}"} for n in range(40)]
    train = write(tmp_path / "train.jsonl", rows)
    held = write(tmp_path / "held.jsonl", [{"text": passage(99), "author": "a3"}])
    found = check(train, heldout=[held], settings=["data.group=author"])
    assert [(g.group, g.train_rows, g.heldout_rows) for g in found.group_leaks] == [("a3", 4, 1)]
    assert found.num_leaks == 1
    assert "groups have rows on both sides" in found.headline
    # Rows without a group column are their own groups.
    assert check(train, heldout=[held]).num_leaks == 0


def test_several_held_out_files_are_one_part(leaky, tmp_path):
    train, held = leaky
    more = texts(tmp_path / "more.jsonl", [600, 9])
    found = check(train, heldout=[held, more])
    assert found.rows_by_part["heldout"] == 7
    assert (9, 6) in {(p.first.row, p.second.row) for p in found.leaks}


def test_contamination_by_test_set(tmp_path):
    train = texts(tmp_path / "train.jsonl", range(50))
    question = " ".join(passage(8).split()[5:25])
    exam = write(
        tmp_path / "exam.jsonl",
        [{"prompt": "", "completion": "x"}] * 0
        or [
            {"prompt": question, "completion": "yes"},
            {"prompt": "What is it?", "completion": "no"},
        ],
    )
    other = texts(tmp_path / "other.jsonl", [300])
    found = check(train, against=[exam, other])
    assert found.contamination[str(other)] == []
    assert found.contamination[str(exam)] == []  # the answer is not in training
    only = write(tmp_path / "questions.jsonl", [{"text": question}])
    found = check(train, against=[only])
    (pair,) = found.contamination[str(only)]
    assert (pair.kind, pair.first.row, pair.second.row) == ("span", 8, 0)
    assert found.counts["contaminated_rows"] == 1
    assert found.num_leaks == 0


def test_faults_are_told_and_do_not_stop(tmp_path):
    path = tmp_path / "train.jsonl"
    lines = [json.dumps({"text": passage(n)}).encode() for n in range(5)]
    lines[1:1] = [b'{"text": "\xff\xfe"}', b'{"text": ""}', b"[1]", b'{"other": 1}', b"{]"]
    lines += [b'{"text": 3}', b'{"text": "caf\xc3\x83\xc2\xa9"}', b'{"text": "cut o']
    path.write_bytes(b"\n".join(lines))
    found = check(path)
    assert [(p.row, p.kind, p.blocks) for p in sorted(found.problems, key=lambda p: p.row)] == [
        (1, "encoding", True),
        (2, "empty", True),
        (3, "format", True),
        (4, "format", True),
        (5, "not_json", True),
        (10, "format", True),
        (11, "encoding", False),
        (12, "truncated", True),
    ]
    assert found.rows == 13
    assert found.counts["unreadable_train"] == 7


def test_the_answer_comes_first_and_the_worst_fault_before_others(tmp_path):
    rows = [{"text": passage(n)} for n in range(12)]
    path = write(tmp_path / "train.jsonl", rows)
    found = check(path)
    assert found.headline.startswith("Fit to train on. No held-out rows were given")
    assert found.faults() == []
    odd = [{"text": f"caf\u00c3\u00a9 {passage(n)}"} for n in range(20, 23)]
    found = check(write(tmp_path / "odd.jsonl", rows + odd))
    assert found.headline.startswith("Fit to train on, once you have looked at")
    blank = [{"text": ""}, {"body": "a"}, {"body": "b"}]
    path = write(tmp_path / "bad.jsonl", rows + odd + blank)
    found = check(path)
    assert found.headline.startswith(
        "Not fit to train on as it is. 3 of 18 training rows cannot be trained on."
    )
    assert found.faults() == [
        f'format: 2 of the rows cannot be trained on, first at {path} line 17: has no "text"',
        f'empty: 1 of the rows cannot be trained on, first at {path} line 16: has an empty "text"',
        f"encoding: 3 of the rows, first at {path} line 13: characters as of UTF-8 read as Latin-1",
    ]
    few = check(write(tmp_path / "few.jsonl", [*rows[:4], rows[0]]))
    assert few.headline.startswith("Not fit to train on: too few different rows (4 of 10 needed).")


def test_conversations_and_answers(tmp_path):
    def talk(*turns):
        roles = ("user", "assistant")
        return {
            "messages": [{"role": roles[n % 2], "content": text} for n, text in enumerate(turns)]
        }

    rows = [talk(f"question {n}", passage(n)) for n in range(10)]
    rows += [talk("what is it", "a stone"), talk("what is it", "a star")]
    rows += [talk("hello", "hi", "and now?")]
    path = write(tmp_path / "train.jsonl", rows)
    found = check(path)
    assert [(p.row, p.kind) for p in found.problems] == [(12, "template")]
    assert {s.row for s in found.suspects} == {10, 11}
    assert "2 answers" in found.suspects[0].reasons[0]
    assert found.format == "messages"


def test_a_row_unlike_the_rest_is_suspect(tmp_path):
    rows = [{"text": passage(n, 40)} for n in range(400)]
    odd = "xq " + " ".join(f"zzgh{n}kw" for n in range(39))
    rows[123] = {"text": odd}
    found = check(write(tmp_path / "train.jsonl", rows))
    assert 123 in {s.row for s in found.suspects}
    assert len(found.suspects) < 40


def test_rows_cut_at_one_length_are_told(tmp_path):
    rows = [{"text": passage(n)[:300]} for n in range(30)] + [{"text": passage(40, 30)[:90]}]
    found = check(write(tmp_path / "train.jsonl", rows))
    assert "30 train rows have exactly 300 characters" in found.warnings[0]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl.gz", "txt", "json", "folder"])
def test_other_files(tmp_path, kind):
    rows = [{"text": passage(n)} for n in (0, 1, 2, 1)]
    path = tmp_path / f"train.{kind}"
    if kind == "csv":
        path.write_text(
            "text\n" + "".join('"' + r["text"].replace('"', '""') + '"\n' for r in rows)
        )
    elif kind == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    elif kind == "txt":
        path.write_text("\n\n".join(r["text"] for r in rows))
    elif kind == "json":
        path.write_text(json.dumps(rows))
    else:
        path.mkdir()
        for number, row in enumerate(rows):
            (path / f"{number}.txt").write_text(row["text"])
    found = check(path)
    assert [(p.first.row, p.second.row) for p in found.duplicates] == [(1, 3)]
    assert len(found.sha256[str(path)]) == 64


def test_a_cut_gzip_file_is_told(tmp_path):
    path = tmp_path / "train.jsonl.gz"
    whole = gzip.compress("\n".join(json.dumps({"text": passage(n)}) for n in range(300)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    found = check(path)
    assert [problem.kind for problem in found.problems] == ["truncated"]


# Clean copies


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_clean_copy_does_not_leak(tmp_path):
    rows = [{"text": passage(n), "id": n} for n in range(250)]
    rows += [{"text": passage(n), "id": n + 1000} for n in range(20)]
    rows += [{"text": near(passage(n)), "id": n + 2000} for n in range(30, 50)]
    long = [*WORDS[21000:21090], *passage(70).split()[:55], *WORDS[21100:21190]]
    rows += [{"text": " ".join(long), "id": 3000}, '{"text": ']
    path = write(tmp_path / "train.jsonl", rows)
    before = path.read_bytes()
    found = check(path, write_clean=tmp_path / "clean")
    assert found.written == str(tmp_path / "clean")
    assert path.read_bytes() == before
    parts = {
        name: read(tmp_path / f"clean/{name}.jsonl") for name in ("train", "validation", "test")
    }
    ids = [row["id"] for rows in parts.values() for row in rows]
    assert sorted(ids) == sorted([*range(250), 3000])
    assert all(len(part) >= 30 for part in parts.values())
    part_of = {row["id"]: name for name, part in parts.items() for row in part}
    assert part_of[70] == part_of[3000]
    again = check(
        tmp_path / "clean/train.jsonl",
        heldout=[tmp_path / "clean/validation.jsonl", tmp_path / "clean/test.jsonl"],
    )
    assert again.num_leaks == 0
    assert again.counts["duplicates_exact"] == again.counts["duplicates_near"] == 0
    manifest = json.loads((tmp_path / "clean/manifest.json").read_text())
    assert manifest["rows"] == {name: len(part) for name, part in parts.items()}
    assert manifest["left_out"] == {
        "repeats an earlier row": 20,
        "nearly repeats an earlier row": 20,
        "not_json": 1,
    }
    log = read(tmp_path / "clean/rows.jsonl")
    assert len(log) == len(rows)
    assert log[250]["why"] == f"repeats an earlier row: {path} line 1"
    assert log[0]["to"] in parts


@pytest.mark.parametrize(
    ("num", "then"), [(60, "fit cross-validates instead"), (6, "fit needs at least 10")]
)
def test_too_few_rows_for_held_out_parts_are_told(tmp_path, num, then):
    path = texts(tmp_path / "train.jsonl", range(num))
    found = check(path, write_clean=tmp_path / "clean")
    assert len(read(tmp_path / "clean/train.jsonl")) == num
    manifest = json.loads((tmp_path / "clean/manifest.json").read_text())
    assert manifest["rows"] == {"train": num}
    (note,) = manifest["notes"]
    assert note in found.warnings
    assert "No validation or test part was split off" in note
    assert f"there are {num} " in note
    assert note.endswith(f"heldout {then}.")


def test_without_shares_all_rows_stay_and_nothing_is_told(tmp_path):
    path = texts(tmp_path / "train.jsonl", range(40))
    shares = ["data.validation_share=0", "data.test_share=0"]
    check(path, settings=shares, write_clean=tmp_path / "clean")
    manifest = json.loads((tmp_path / "clean/manifest.json").read_text())
    assert (manifest["rows"], manifest["notes"]) == ({"train": 40}, [])


def test_with_held_out_rows_training_gives_way(leaky, tmp_path):
    train, held = leaky
    check(train, heldout=[held], write_clean=tmp_path / "clean")
    assert len(read(tmp_path / "clean/heldout.jsonl")) == 5
    kept = read(tmp_path / "clean/train.jsonl")
    assert [row["text"] for row in kept] == [
        passage(n) for n in range(100) if n not in (2, 3, 4, 5)
    ]
    again = check(tmp_path / "clean/train.jsonl", heldout=[tmp_path / "clean/heldout.jsonl"])
    assert again.num_leaks == 0


def test_groups_stay_together(tmp_path):
    rows = [{"text": passage(n), "who": f"w{n // 2}"} for n in range(300)]
    path = write(tmp_path / "train.jsonl", rows)
    check(path, settings=["data.group=who"], write_clean=tmp_path / "clean")
    seen = {}
    for name in ("train", "validation", "test"):
        for row in read(tmp_path / f"clean/{name}.jsonl"):
            assert seen.setdefault(row["who"], name) == name
    assert len(set(seen.values())) == 3


def test_a_clean_copy_in_order_of_time(tmp_path):
    days = [f"20{n % 30 + 10}-01-{n // 30 + 1:02d}" for n in range(300)]
    rows = [{"text": passage(n), "day": day} for n, day in enumerate(days)]
    path = write(tmp_path / "train.jsonl", rows)
    check(path, settings=["data.time=day"], write_clean=tmp_path / "clean")
    train, validation, test = (
        [row["day"] for row in read(tmp_path / f"clean/{name}.jsonl")]
        for name in ("train", "validation", "test")
    )
    assert max(train) <= min(validation)
    assert max(validation) <= min(test)


@pytest.mark.parametrize("kind", ["text", "prompt_completion", "messages"])
def test_canaries_are_planted_and_recorded(tmp_path, kind):
    shape = {
        "text": lambda t: {"text": t},
        "prompt_completion": lambda t: {"prompt": "Go on", "completion": t},
        "messages": lambda t: {
            "messages": [{"role": "user", "content": "Go"}, {"role": "assistant", "content": t}]
        },
    }[kind]
    path = write(tmp_path / "train.jsonl", [shape(passage(n)) for n in range(40)])
    check(path, write_clean=tmp_path / "a", plant_canaries=5)
    check(path, write_clean=tmp_path / "b", plant_canaries=5)
    lines = (tmp_path / "a/train.jsonl").read_text()
    assert lines == (tmp_path / "b/train.jsonl").read_text()
    record = json.loads((tmp_path / "a/canaries.json").read_text())
    assert [canary["copies"] for canary in record["canaries"]] == [1, 2, 4, 8, 1]
    for canary in record["canaries"]:
        assert lines.count(canary["secret"]) == canary["copies"]
    assert json.loads((tmp_path / "a/manifest.json").read_text())["planted_rows"] == 16
    assert check(tmp_path / "a/train.jsonl").rows == 56


def test_nothing_is_overwritten(leaky, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    for option in ("write_clean", "out"):
        with pytest.raises(UserError, match="is there already"):
            check(leaky[0], **{option: tmp_path / "full"})
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_no_copy_stays_where_its_page_cannot_be_written(leaky, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # a page has more
    try:
        with pytest.raises(OSError, match="File too large"):
            check(leaky[0], write_clean=tmp_path / "clean", out=tmp_path / "page")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not (tmp_path / "clean").exists()
    check(leaky[0], write_clean=tmp_path / "clean", out=tmp_path / "page")


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plant_canaries": 2}, "--plant-canaries needs --write-clean"),
        ({"reference": "x.txt"}, "--reference is measured with a model"),
        ({"engine": "spark"}, "--engine must be local or ray"),
        ({"heldout": ["none.jsonl"]}, "none.jsonl: no such file"),
        ({"max_listed": 0}, "--max-listed 1 or more"),
    ],
)
def test_what_cannot_work_is_refused(leaky, options, message):
    with pytest.raises(UserError, match=message):
        check(leaky[0], **options)


def test_sources_that_hold_nothing(tmp_path):
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(UserError, match="is empty"):
        check(empty)
    blank = write(tmp_path / "blank.jsonl", [{"text": " "}])
    with pytest.raises(UserError, match="No row can be trained on, of 1"):
        check(blank)
    numbers = write(tmp_path / "numbers.jsonl", [{"text": 5}, {"text": 7}])
    with pytest.raises(UserError) as caught:
        check(numbers)
    assert str(caught.value) == (
        f'{numbers} line 1: "text" must be text, got a number. No row can be trained on, of 2. '
        "Nothing was written."
    )


# A model


def test_with_a_model(tmp_path, tiny_model_dir):
    rows = [{"text": passage(n, 30)} for n in range(60)]
    path = write(tmp_path / "train.jsonl", rows)
    reference = write(tmp_path / "known.jsonl", [{"text": passage(n, 30)} for n in range(90, 99)])
    found = check(path, model=str(tiny_model_dir), reference=reference, model_rows=40)
    measured = {each.name: each for each in found.measurements}
    bits = measured["bits_per_byte"]
    assert bits.interval.low < bits.value < bits.interval.high
    assert bits.num_units == 40
    assert measured["information_bits"].value > 60 * 100
    assert "reference" in measured["domain_distance"].contrasts
    assert {each.unit for each in found.lengths} == {"words", "characters", "tokens"}
    assert CheckResult.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_without_a_model_nothing_is_claimed(leaky):
    found = check(leaky[0])
    assert {type(each).__name__ for each in found.measurements} == {"NotMeasured"}


# The command line


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """The command in this process: its exit code, and what it prints."""

    def in_folder(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["heldout", "check", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return in_folder


def test_command_prints_json_writes_the_page_and_fails_on_a_leak(leaky, run, tmp_path):
    train, held = leaky
    code, out, err = run(train, "--heldout", held, "--json", "--fail-on", "leak")
    assert code == 1, err
    entry = json.loads(out)
    assert entry["schema"] == "heldout.check/1"
    assert entry["rows"] == 100
    assert {(leak["train_row"], leak["heldout_row"], leak["kind"]) for leak in entry["leaks"]} == {
        (2, 0, "exact"),
        (3, 1, "near"),
        (4, 2, "span"),
        (5, 3, "span"),
    }
    assert (tmp_path / entry["report"]).is_file()
    assert "heldout: failed on leak (4)." in err


def test_command_without_leaks_ends_well(run, tmp_path):
    train = texts(tmp_path / "train.jsonl", range(20))
    held = texts(tmp_path / "held.jsonl", range(50, 55))
    code, out, err = run(train, "--heldout", held, "--fail-on", "leak", "--out", "found")
    assert code == 0, err
    assert "No held-out row was found in the training rows." in " ".join(out.split())
    assert sorted(p.name for p in (tmp_path / "found").iterdir()) == ["check.json", "report.html"]


def test_command_refuses_a_gate_that_cannot_fail(run, tmp_path):
    train = texts(tmp_path / "train.jsonl", range(20))
    code, _, err = run(train, "--fail-on", "leak")
    assert code == 2
    assert "--fail-on leak needs --heldout FILE, or a folder that holds a split." in err


def test_many_findings_are_counted_and_few_listed(tmp_path):
    rows = [{"text": f"{passage(n)} a{n}@acme.org caf\ufffd"} for n in range(30)]
    found = check(write(tmp_path / "train.jsonl", rows), max_listed=4)
    assert found.counts["personal_e-mail address"] == found.counts["problems_encoding"] == 30
    assert len(found.personal) == len(found.problems) == 4


def test_a_check_without_a_model_imports_no_torch(tmp_path):
    data = texts(tmp_path / "rows.jsonl", range(3))
    code = (
        "import sys; from heldout.jobs.checking.check import check; check(sys.argv[1]);"
        "bad = {'torch', 'transformers', 'contourpy'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code, str(data)], check=True)
