"""Folders, splits that are ready, packed files: what is read as what, and what is said of it."""

import bz2
import gzip
import io
import json
import lzma
import zipfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from heldout.core.errors import UserError
from heldout.core.recipe import DataSection, load_recipe
from heldout.data.read import read_table
from heldout.data.split_names import parts_of_names
from heldout.data.stream import RowStream
from heldout.jobs.kit.parts import read_parts

NAMES = ("Alba", "Brig", "Cutter", "Dhow", "Ewer", "Felucca", "Galley", "Hoy", "Junk", "Ketch")
SHIPS = [
    {"text": f"The {name} left port {n} with {3 * n + 2} sails."}
    for n, name in enumerate((*NAMES, "Lugger", "Yawl"))
]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def put(folder, **files):
    """Files of a folder by their names, with ``__`` for a dot and ``--`` for a slash."""
    for name, rows in files.items():
        path = folder / name.replace("__", ".").replace("--", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_bytes(rows if isinstance(rows, bytes) else lines(rows))
    return folder


def texts_of(source, part="train", data=None):
    table = read_table(source, data or DataSection(), part)
    return [record.fields["text"] for record in table.records]


# Names


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ("train.jsonl valid.jsonl test.jsonl", "train validation test"),
        ("Train.CSV DEV.CSV", "train validation"),
        ("training_set.json eval_set.json", "train test"),
        ("ships_train.jsonl ships_val.jsonl ships_eval.jsonl", "train validation test"),
        ("train.jsonl eval.jsonl test.jsonl", "train validation test"),
        ("main/train/0000.parquet main/test/0000.parquet", "train test"),
        ("train-00000-of-00002.parquet train-00001-of-00002.parquet test-00000-of-00001.parquet",
         "train train test"),
        ("train-v2.0.json dev-v2.0.json", "train validation"),
        ("squad_train_v1.1.json squad_test_v1.1.json", "train test"),
        ("data/train-00000-of-00001-b42a775f407cee45.parquet data/test.parquet", "train test"),
    ],
)  # fmt: skip
def test_names_of_a_split(names, parts):
    found = parts_of_names(names.split(), are_texts=False)
    part_of = {name: part for part, members in found.items() for name in members}
    assert [part_of[name] for name in names.split()] == parts.split()


@pytest.mark.parametrize(
    "names",
    [
        "train-00000-of-00002.parquet train-00001-of-00002.parquet",
        "part-0.jsonl part-1.jsonl part-2.jsonl",
        "test-0.jsonl test-1.jsonl",
        "validation.jsonl test.jsonl",
        "contest.jsonl trainer.jsonl latest.jsonl",
        "2021.jsonl 2022.jsonl",
        "the-train-to-lyon-at-dawn.jsonl a-long-test-of-patience.jsonl",
    ],
)
def test_names_of_no_split(names):
    assert parts_of_names(names.split(), are_texts=False) == {}


def test_titles_of_texts_are_no_parts_unless_they_are_nothing_else():
    titles = ["night-train.txt", "driving-test.txt", "valid.txt"]
    assert parts_of_names(titles, are_texts=True) == {}
    whole = ["wiki.train.txt", "wiki.test.txt"]
    assert parts_of_names(whole, are_texts=True) == {"train": whole[:1], "test": whole[1:]}
    mixed = ["train.txt", "test.txt", "about.txt"]
    assert parts_of_names(mixed, are_texts=True) == {"train": mixed[:1], "test": mixed[1:2]}


# Splits that are ready


def test_a_split_is_read_as_such_and_said(tmp_path):
    put(tmp_path, train__jsonl=SHIPS[:6], valid__jsonl=SHIPS[6:9], test__jsonl=SHIPS[9:])
    put(tmp_path, README__md=b"ships")
    for part, rows in (("train", SHIPS[:6]), ("validation", SHIPS[6:9]), ("test", SHIPS[9:])):
        assert texts_of(tmp_path, part) == [row["text"] for row in rows]
    assert texts_of(tmp_path, "heldout") == [row["text"] for row in SHIPS[9:]]
    assert read_table(tmp_path).notes == (
        f"{tmp_path} holds a split that is ready: train.jsonl for train, valid.jsonl for "
        "validation, test.jsonl for test.",
        f"Not read in {tmp_path}: README.md.",
    )
    assert read_table(tmp_path).sha256 != read_table(tmp_path, part="test").sha256


def test_parts_of_one_object(tmp_path):
    path = tmp_path / "ships.json"
    for indent in (None, 1):
        path.write_text(json.dumps({"train": SHIPS[:8], "test": SHIPS[8:]}, indent=indent))
        assert texts_of(path) == [row["text"] for row in SHIPS[:8]]
        assert texts_of(path, "test") == [row["text"] for row in SHIPS[8:]]
        assert read_table(path).notes[0].endswith('"train" for train, "test" for test.')
        assert read_table(path, part="test").records[0].where == f"{path} test row 1"


def words(n):
    return " ".join(f"w{n * 7919 % 9973 + 13 * k}x{n}" for k in range(30))


def test_fit_deals_validation_from_train_and_leaves_test_as_it_is(tmp_path):
    rows = [{"text": words(n)} for n in range(130)]
    put(tmp_path, **{"a--train.parquet": rows[:100], "a--test.parquet": rows[100:]})
    parts = read_parts(str(tmp_path), load_recipe("default"))
    assert parts.rows == {"train": 70, "validation": 30, "test": 30}
    assert {row.text for row in parts.test} == {row["text"] for row in rows[100:]}
    assert "a/train.parquet for train, a/test.parquet for test." in parts.about["reading"][0]
    put(tmp_path, **{"a--valid.parquet": rows[90:100]})
    put(tmp_path, **{"a--train.parquet": rows[:90]})
    parts = read_parts(str(tmp_path), load_recipe("default"))
    assert parts.rows == {"train": 90, "validation": 10, "test": 30}


def test_the_users_own_part_goes_before_the_one_in_the_folder(tmp_path):
    rows = [{"text": words(n)} for n in range(90)]
    put(tmp_path / "d", train__jsonl=rows[:50], test__jsonl=rows[50:60], dev__jsonl=rows[60:70])
    own = put(tmp_path, own__jsonl=rows[70:]) / "own.jsonl"
    parts = read_parts(str(tmp_path / "d"), load_recipe("default", [f"data.test={own}"]))
    assert parts.rows == {"train": 50, "validation": 10, "test": 20}


def test_check_compares_the_parts_of_a_folder(tmp_path):
    from heldout.jobs.checking.check import check

    rows = [{"text": words(n)} for n in range(40)]
    put(tmp_path, train__jsonl=rows[:30], test__jsonl=rows[28:], val__jsonl=[{"text": words(50)}])
    found = check(tmp_path)
    assert found.rows_by_part == {"train": 30, "heldout": 13}
    assert found.counts["leaks_exact"] == 2
    assert found.heldout == [f"{tmp_path} (validation)", f"{tmp_path} (test)"]
    assert len(found.sha256) == 3
    assert found.headline.startswith("Not fit to train on as it is. 2 of 13 held-out rows leak")
    assert found.reading[0].startswith(f"{tmp_path} holds a split that is ready")
    clean = tmp_path.parent / f"{tmp_path.name}-clean"
    check(tmp_path, write_clean=clean)
    counts = json.loads((clean / "manifest.json").read_text())["rows"]
    assert counts == {"train": 28, "validation": 1, "test": 12}
    assert len(texts_of(clean)) == 28
    assert len(texts_of(clean, "test")) == 12


def test_diagnose_takes_the_held_out_part_of_the_same_folder(tmp_path):
    from heldout.core.progress import Progress
    from heldout.jobs.evidence.texts import texts_of_files

    rows = [{"text": words(n)} for n in range(30)]
    put(tmp_path, train__jsonl=rows[:20], dev__jsonl=rows[20:24], test__jsonl=rows[22:])
    texts = texts_of_files(str(tmp_path), "", {}, load_recipe("default"), 50, Progress())
    assert [row.text for row in texts.train] == [row["text"] for row in rows[:20]]
    assert [row.text for row in texts.heldout] == [row["text"] for row in rows[22:]]


def test_a_clean_copy_without_parts_is_read_without_its_log(tmp_path):
    from heldout.jobs.checking.check import check

    put(tmp_path, ships__jsonl=SHIPS)
    check(tmp_path / "ships.jsonl", write_clean=tmp_path / "clean")
    assert sorted(texts_of(tmp_path / "clean")) == sorted(row["text"] for row in SHIPS)


# Shards


def test_all_shards_are_read_and_named(tmp_path):
    put(
        tmp_path, **{"part-1.jsonl": SHIPS[7:], "part-0.jsonl.zst": zstd.compress(lines(SHIPS[:7]))}
    )
    put(tmp_path, **{"notes.md": b"none", ".git--config": b"hidden"})
    assert texts_of(tmp_path) == [row["text"] for row in SHIPS]
    notes = (
        f"Not read in {tmp_path}: notes.md.",
        f"{tmp_path}: rows of part-0.jsonl.zst (7), part-1.jsonl (5).",
    )
    assert read_table(tmp_path).notes == notes
    stream = RowStream(tmp_path)
    assert len(list(stream)) == 12
    assert tuple(stream.notes()) == notes


def test_many_files_are_named_in_part(tmp_path):
    put(tmp_path, **{f"{n}.jsonl": SHIPS[n : n + 1] for n in range(9)})
    assert read_table(tmp_path).notes == (
        f"{tmp_path}: rows of 0.jsonl (1), 1.jsonl (1), 2.jsonl (1), 3.jsonl (1) and 5 more.",
    )


# Packed files


def zipped(data, *names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, data)
    return packed.getvalue()


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
    ".zip": lambda data: zipped(data, "ships.jsonl"),
}


@pytest.mark.parametrize("ending", PACKERS)
def test_packed_files_by_their_own_name_and_by_another(tmp_path, ending):
    path = tmp_path / f"ships.jsonl{ending}"
    path.write_bytes(PACKERS[ending](lines(SHIPS)))
    assert texts_of(path) == [row["text"] for row in SHIPS]
    assert read_table(path).notes == ()
    other = path.rename(tmp_path / "ships.jsonl")
    assert texts_of(other) == [row["text"] for row in SHIPS]
    assert "file under another name: it was unpacked." in read_table(other).notes[0]
    other.write_bytes(other.read_bytes()[:-12] if ending != ".zip" else b"PK\x03\x04" + b"x" * 40)
    with pytest.raises(UserError, match="ends too early or is damaged"):
        read_table(other)


def test_rows_before_the_damage_of_a_packed_file_are_read(tmp_path):
    path = tmp_path / "ships.jsonl.gz"
    random = "".join(f"{n * 7919 % 99991:05d}" for n in range(4000))
    whole = gzip.compress(lines([SHIPS[0], {"text": random}, SHIPS[1]]))
    path.write_bytes(whole[: len(whole) // 2])
    good, bad = RowStream(path)
    assert (good.row.text, bad.fault.kind) == (SHIPS[0]["text"], "truncated")


def test_packed_tables(tmp_path):
    put(tmp_path, ships__parquet=SHIPS)
    packed = tmp_path / "ships.parquet.gz"
    packed.write_bytes(gzip.compress((tmp_path / "ships.parquet").read_bytes()))
    assert texts_of(packed) == [row["text"] for row in SHIPS]
    csv = tmp_path / "ships.csv.xz"
    csv.write_bytes(lzma.compress(b"text;port\na;b\n"))
    assert texts_of(csv) == ["a"]


def test_a_zip_file_without_an_ending_is_what_lies_in_it(tmp_path):
    path = tmp_path / "ships.zip"
    path.write_bytes(zipped(lines(SHIPS), "__MACOSX/._a", "inside/A.JSONL"))
    assert texts_of(path) == [row["text"] for row in SHIPS]
    (tmp_path / "v1.2.zip").write_bytes(zipped(b"text;port\na;b\n", "ships.csv"))
    assert texts_of(tmp_path / "v1.2.zip") == ["a"]
    for packed, message in (
        (zipped(b"{}", "a.jsonl", "b.jsonl"), "must hold one file, got 2"),
        (zipped(b"", "a.docx"), "has '.docx' as its ending"),
        (b"none", "has no ending before '.zip'"),
    ):
        path.write_bytes(packed)
        with pytest.raises(UserError, match=message):
            read_table(path)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        (zipped(b"{}", "a.jsonl", "b.jsonl"), r"must hold one file, got 2 \(a.jsonl, b.jsonl\): "),
        (zipped(b""), "damaged|must hold one file, got 0"),
    ],
)
def test_zip_files_of_several(tmp_path, packed, message):
    path = tmp_path / "all.jsonl.zip"
    path.write_bytes(packed)
    with pytest.raises(UserError, match=message):
        read_table(path)


# Bounds, lowered


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst", ".zip"])
def test_what_unpacks_to_very_much_is_refused(tmp_path, ending, monkeypatch):
    monkeypatch.setattr("heldout.data.unpack._FREE", 10_000)
    path = tmp_path / f"rows.jsonl{ending}"
    path.write_bytes(PACKERS[ending](lines(SHIPS[:1] * 20_000)))
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value) == (
        f"{path} unpacks to more than 200 times its size: if that is meant, raise --set "
        "data.max_unpack_ratio=200. Nothing was written."
    )
    with pytest.raises(UserError, match="unpacks to more than"):
        list(RowStream(path))
    assert len(texts_of(path, data=DataSection(max_unpack_ratio=100_000))) == 20_000


def test_a_table_of_one_text_over_and_over_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("heldout.data.unpack._FREE", 10_000)
    put(tmp_path, same__parquet=SHIPS[:1] * 60_000, few__parquet=SHIPS * 20)
    assert len(texts_of(tmp_path / "few.parquet")) == 240
    with pytest.raises(UserError, match="unpacks to more than 200 times its size"):
        read_table(tmp_path / "same.parquet")


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.jsonl", b'{"text": "'),
        ("a.csv", b"text\n"),
        ("quote.csv", b'text\n"a\n'),
        ("a.txt", b"start "),
    ],
)
def test_a_line_without_end(tmp_path, name, start, monkeypatch):
    monkeypatch.setattr("heldout.data.encoding.MIB", 1000)
    monkeypatch.setattr("heldout.data.files.MIB", 1000)
    path = tmp_path / name
    path.write_bytes(start + (b"b\n" if name == "quote.csv" else b"bb") * 40_000)
    for read in (read_table, lambda path: list(RowStream(path))):
        with pytest.raises(UserError, match=r"is longer than 64 MiB: .* data\.max_row_mib=64") as e:
            read(path)
        assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "[" * 200_000 + "]" * 200_000])
@pytest.mark.parametrize("name", ["deep.json", "deep.jsonl"])
def test_deeply_nested_json(tmp_path, text, name):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match="not JSON"):
        read_table(path)
    path.write_text(json.dumps(SHIPS[0]) + "\n" + text + "\n")
    if name == "deep.jsonl":
        with pytest.raises(UserError, match=r"line 2: not JSON \(nested too"):
            read_table(path)


def test_a_column_that_is_there_twice_is_refused_by_check_as_by_fit(tmp_path):
    path = tmp_path / "twice.csv"
    path.write_text("text,text\na,b\n")
    for read in (read_table, RowStream):
        with pytest.raises(UserError, match="line 1: column 'text' is there twice"):
            read(path)


# Shapes of JSON


def as_array(rows):
    return json.dumps(rows)


def as_pretty_array(rows):
    return json.dumps(rows, indent=2)


def as_pretty_objects(rows):
    return "\n".join(json.dumps(row, indent=2) for row in rows)


def as_rows_of_viewer(rows):
    rows = [{"row_idx": n, "row": row, "truncated_cells": []} for n, row in enumerate(rows)]
    return json.dumps({"features": [{"name": "text"}], "rows": rows})


def as_named_list(rows):
    return json.dumps({"version": 2, "ships": rows}, indent=1)


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
@pytest.mark.parametrize(
    "write", [as_array, as_pretty_array, as_pretty_objects, as_rows_of_viewer, as_named_list]
)
def test_shapes_of_json(tmp_path, write, name):
    path = tmp_path / name
    path.write_text(write(SHIPS))
    assert texts_of(path) == [row["text"] for row in SHIPS]
    assert [item.row.text for item in RowStream(path)] == [row["text"] for row in SHIPS]


def test_objects_in_one_line_and_none_with_anything_in_it(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("".join(map(json.dumps, SHIPS)))
    assert texts_of(path) == [row["text"] for row in SHIPS]
    path.write_text("{}")
    with pytest.raises(UserError, match="its rows are empty objects"):
        RowStream(path)


def test_one_array_in_a_line_longer_than_a_row_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr("heldout.data.encoding.MIB", 4)
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(SHIPS))
    assert texts_of(path) == [row["text"] for row in SHIPS]


def test_one_conversation_alone_is_a_row_and_no_list_of_rows(tmp_path):
    path = tmp_path / "one.json"
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann."}]
    for row in ({"messages": turns}, {"id": 3, "messages": turns}, {"dialog": turns}):
        path.write_text(json.dumps(row, indent=1))
        (record,) = read_table(path).records
        assert (record.fields, record.where) == (row, f"{path} line 1")


def test_a_broken_first_line_does_not_make_lines_something_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"\n' + lines(SHIPS))
    faults = [item.fault.kind for item in RowStream(path) if item.fault]
    assert faults == ["not_json"]
    path.write_text(as_pretty_objects(SHIPS)[:-1])
    with pytest.raises(UserError, match=r"line \d+: not JSON"):
        read_table(path)


# Separators


@pytest.mark.parametrize(
    ("name", "separator", "said"),
    [
        ("a.csv", ";", "its columns are separated by ';'."),
        ("a.csv", "\t", "its columns are separated by tabs."),
        ("a.csv", "|", "its columns are separated by '|'."),
        ("a.tsv", ",", "its columns are separated by ','."),
        ("a.tsv", "\t", ""),
        ("a.csv", ",", ""),
    ],
)
def test_the_separator_is_recognized_and_said(tmp_path, name, separator, said):
    path = tmp_path / name
    cells = [["text", "port of call"], ['"one; two, three\tfour"', "Hull"], ["five", "Kiel"]]
    path.write_text("\n".join(separator.join(row) for row in cells) + "\n")
    table = read_table(path)
    assert [record.fields["text"] for record in table.records] == ["one; two, three\tfour", "five"]
    assert [record.where for record in table.records] == [f"{path} line 2", f"{path} line 3"]
    assert [note.removeprefix(f"{path}: ") for note in table.notes] == ([said] if said else [])


def test_a_column_without_a_name_is_one_that_is_not_used(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",prompt,completion\n0,Who?,Ann.\n1,Where?,Hull.\n")
    rows = [item.row for item in RowStream(path)]
    assert [row.messages[1]["content"] for row in rows] == ["Ann.", "Hull."]
    assert [row.source for row in rows] == ["", ""]
    assert RowStream(path).notes() == [f"{path}: not used: column 'column 1'."]


def test_the_separator_that_excel_names(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sep=;\ntext;port\none;Hull\ntwo;Kiel;3\n")
    first, second = RowStream(path)
    assert (first.where, first.fields) == (f"{path} line 3", {"text": "one", "port": "Hull"})
    assert second.fault.message == "3 fields where the header has 2"


# What other tools save


def test_a_data_set_of_datasets(tmp_path):
    saved = datasets.Dataset.from_list(SHIPS).select([3, 1, 2])
    saved.save_to_disk(tmp_path / "one")
    assert texts_of(tmp_path / "one") == [SHIPS[n]["text"] for n in (3, 1, 2)]
    assert len(read_table(tmp_path / "one").sha256) == 64
    parts = {"train": datasets.Dataset.from_list(SHIPS[:9]), "dev": saved, "extra": saved}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "all")
    assert len(texts_of(tmp_path / "all")) == 9
    assert texts_of(tmp_path / "all", "validation") == [SHIPS[n]["text"] for n in (3, 1, 2)]
    assert read_table(tmp_path / "all").notes[-1] == f"Not read in {tmp_path / 'all'}: extra."
    del parts["train"]
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "none")
    with pytest.raises(UserError, match="holds dev, extra, none of which is known to be"):
        read_table(tmp_path / "none")
    next((tmp_path / "one").glob("*.arrow")).write_bytes(b"cut")
    with pytest.raises(UserError, match="not a whole data set of datasets"):
        read_table(tmp_path / "one")


@pytest.mark.parametrize("opener", ["new_file", "new_stream"])
def test_arrow_files(tmp_path, opener):
    table = pa.Table.from_pylist(SHIPS)
    with getattr(pa.ipc, opener)(tmp_path / "ships.arrow", table.schema) as writer:
        writer.write_table(table)
    assert texts_of(tmp_path / "ships.arrow") == [row["text"] for row in SHIPS]
    (tmp_path / "ships.arrow").write_bytes(b"no table")
    with pytest.raises(UserError, match="not a whole Arrow file"):
        read_table(tmp_path / "ships.arrow")


LISTED = {
    "ships": {
        "file_name": "s.json",
        "columns": {"prompt": "ask", "query": "about", "response": "tell"},
    },
    "talks": {
        "file_name": "t.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "talk"},
        "tags": {
            "role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "you"
        },
    },
    "far": {"hf_hub_url": "owner/name"},
}  # fmt: skip


def test_a_list_of_data_sets(tmp_path):
    put(tmp_path, **{"dataset_info.json": json.dumps(LISTED).encode()})
    put(tmp_path, s__json=[{"ask": "How many?", "about": "sails", "tell": "Three."}])
    put(tmp_path, t__jsonl=[{"talk": [{"who": "me", "what": "Hi"}, {"who": "you", "what": "Ho"}]}])
    with pytest.raises(UserError) as caught:
        read_table(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} lists 3 data sets (ships, talks, far): name one, as in {tmp_path}:ships."
    )
    (item,) = RowStream(f"{tmp_path}:ships")
    assert item.row.messages[0]["content"] == (
        "### Instruction:\nHow many?\n\n### Input:\nsails\n\n### Response:\n"
    )
    assert item.row.messages[1]["content"] == "Three."
    stream = RowStream(f"{tmp_path}/dataset_info.json:talks")
    (item,) = stream
    assert [(m["role"], m["content"]) for m in item.row.messages] == [
        ("user", "Hi"),
        ("assistant", "Ho"),
    ]
    assert "says that 'talks' is t.jsonl" in stream.notes()[0]
    for wanted, message in (
        ("tals", "lists no data set 'tals': did you mean 'talks'?"),
        ("far", "'far': file_name must name a file in the folder"),
    ):
        with pytest.raises(UserError, match=message.replace("?", r"\?")):
            read_table(f"{tmp_path}:{wanted}")
    (tmp_path / "s.json").unlink()
    with pytest.raises(UserError, match=r"'ships': file_name 's\.json' is not in the folder"):
        read_table(f"{tmp_path}:ships")


# A run's own rows


def test_the_rows_of_a_run_are_plain_columns_and_are_read_again(tmp_path):
    from heldout.core.row import Row

    talk = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
    pair = ({"role": "prompt", "content": "a"}, {"role": "completion", "content": "b"})
    text = ({"role": "text", "content": "a"},)
    columns = {"messages": talk, "prompt completion": pair, "text": text}
    for names, messages in columns.items():
        row = Row(3, messages, "g", "s")
        entry = json.loads(json.dumps(row.to_json()))
        assert set(names.split()) <= entry.keys() <= {*names.split(), "index", "group", "source"}
        assert Row.from_json(entry) == row
        old = {"index": 3, "messages": list(messages), "group": "g", "source": "s"}
        assert Row.from_json(old) == row
        path = put(tmp_path, train__jsonl=[entry]) / "train.jsonl"
        (item,) = RowStream(path)
        assert item.row.messages == messages
        assert "not used: columns 'index', 'group'." in RowStream(path).notes()[-1]
        path = put(tmp_path, train__jsonl=[old]) / "train.jsonl"
        assert next(iter(RowStream(path))).row.messages == messages
