"""Every format of file, and what the user reads when one is broken."""

import csv
import gzip
import hashlib
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from english import articles
from heldout.core.errors import UserError
from heldout.data.read import read_table

TEXTS = [text for text in articles() if '"' in text and "," in text and "\n\n" in text][:5]
ROWS = [{"text": text, "source": f"topic {n}"} for n, text in enumerate(TEXTS)]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_jsonl(folder):
    return write_lines(folder / "train.jsonl", ROWS)


def write_json(folder):
    path = folder / "train.json"
    path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    return path


def write_json_data(folder):
    path = folder / "train.json"
    path.write_text(json.dumps({"version": 1, "data": ROWS}), encoding="utf-8")
    return path


def write_json_lines_named_json(folder):
    return write_lines(folder / "train.json", ROWS)


def write_csv(folder, name="train.csv", delimiter=","):
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "source"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def write_tsv(folder):
    return write_csv(folder, "train.tsv", "\t")


def write_parquet(folder):
    path = folder / "train.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def write_gzip(folder):
    path = folder / "train.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(folder).read_bytes()))
    return path


@pytest.mark.parametrize(
    "write",
    [
        write_jsonl,
        write_json,
        write_json_data,
        write_json_lines_named_json,
        write_csv,
        write_tsv,
        write_parquet,
        write_gzip,
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, write):
    path = write(tmp_path)
    table = read_table(path)
    assert [record.fields for record in table.records] == ROWS
    assert table.columns == ["text", "source"]
    assert table.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert len({record.where for record in table.records}) == len(ROWS)


def test_records_know_their_lines(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text\n"two\nlines"\n\nnext\n', encoding="utf-8")
    records = read_table(path).records
    assert [r.where for r in records] == [f"{path} line 2", f"{path} line 5"]
    assert [r.fields["text"] for r in records] == ["two\nlines", "next"]


def test_a_field_longer_than_the_csv_module_allows_by_itself(tmp_path):
    path = tmp_path / "long.csv"
    path.write_text("text\n" + "word " * 50_000 + "\n", encoding="utf-8")
    limit = csv.field_size_limit()
    assert len(read_table(path).records[0].fields["text"]) == 250_000
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks_are_tolerated(tmp_path, encoding):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "größer, 大きい"}\n', encoding=encoding)
    assert read_table(path).records[0].fields == {"text": "größer, 大きい"}


def test_line_separators_inside_strings_do_not_end_a_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one\u2028two"}\r\n{"text": "three"}', encoding="utf-8")
    assert [r.fields["text"] for r in read_table(path).records] == ["one\u2028two", "three"]


# Texts


@pytest.mark.parametrize(
    ("content", "documents", "lines"),
    [
        ("one\nstill one\n\n\n two\n", ["one\nstill one", " two"], [1, 5]),
        ("\n\none\r\nstill one\r\n \r\ntwo\r\n", ["one\nstill one", "two"], [3, 6]),
        ("\none\ntwo\n\n", ["one", "two"], [2, 3]),
        ("a\n\nb\n<|endoftext|>\n\nc\n<|endoftext|>\n", ["a\n\nb", "c"], [1, 6]),
    ],
    ids=["blank lines", "windows", "no blank line", "end of text"],
)
def test_documents_of_a_single_text(tmp_path, content, documents, lines):
    path = tmp_path / "book.txt"
    path.write_bytes(content.encode())
    records = read_table(path).records
    assert [r.fields["text"] for r in records] == documents
    assert [r.where for r in records] == [f"{path} line {line}" for line in lines]


def test_each_file_in_a_folder_of_texts_is_a_document(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    for name, text in zip(["b.txt", "a.txt", "sub/c.txt", ".cache/d.txt"], TEXTS, strict=False):
        (tmp_path / name).write_text(text + "\n", encoding="utf-8")
    (tmp_path / "README.md").write_text("not data", encoding="utf-8")
    table = read_table(tmp_path)
    assert [r.file for r in table.records] == ["a.txt", "b.txt", "sub/c.txt"]
    assert [r.fields["text"] for r in table.records] == [TEXTS[1], TEXTS[0], TEXTS[2]]
    assert table.file_is_document
    (tmp_path / "a.txt").rename(tmp_path / "aa.txt")
    assert read_table(tmp_path).sha256 != table.sha256


def test_a_folder_of_tables_is_read_in_the_order_of_names(tmp_path):
    write_lines(tmp_path / "part-1.jsonl", ROWS[2:])
    pq.write_table(pa.Table.from_pylist(ROWS[:2]), tmp_path / "part-0.parquet")
    table = read_table(tmp_path)
    assert [r.fields for r in table.records] == ROWS
    assert table.records[2].where == f"{tmp_path}/part-1.jsonl line 1"
    assert not table.file_is_document


# The Hub


def test_a_hub_name_is_tried_where_there_is_no_such_path(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [r.fields for r in read_table("owner/name").records] == ROWS
    table = read_table("owner/name:main:test")
    assert table.records[1].where == "owner/name:main:test row 2"
    read_table("owner/name:dev")
    assert asked == [
        ("owner/name", None, "train"),
        ("owner/name", "main", "test"),
        ("owner/name", None, "dev"),
    ]


def test_splits_of_the_hub_that_are_not_read_are_named(monkeypatch):
    import datasets

    rows = datasets.Dataset.from_list(ROWS)
    splits = ("train", "validation", "test")
    rows.info.splits = {name: datasets.SplitInfo(name) for name in splits}
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split: rows)
    assert read_table("owner/name").notes == (
        "Not read in owner/name: owner/name:validation, owner/name:test.",
    )
    assert read_table("owner/name:test").notes == ()


def test_a_hub_name_that_cannot_be_read(monkeypatch):
    import datasets

    def load_dataset(*_, **__):
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (LocalEntryNotFound)\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as caught:
        read_table("owner/name")
    assert str(caught.value) == (
        "owner/name: no such file or folder, and it could not be read from the Hub (Couldn't reach "
        "'owner/name' on the Hub (LocalEntryNotFound))."
    )


# Broken files

BROKEN = {
    "empty.jsonl": (b"", "{} is empty: there are no rows in it."),
    "blank.txt": (b" \n\n", "{} is empty: there are no rows in it."),
    "empty.parquet": (b"", "{} is empty: there are no rows in it."),
    "header.csv": (b"text,source\n", "{} is empty: there are no rows in it."),
    "list.jsonl": (b'["a"]\n', "{} row 1: a row must be an object, got a string."),
    "lists.jsonl": (b'["a"]\n["b"]\n', "{} line 1: a row must be an object, got a list."),
    "cut.json": (
        b'[{"text": "a"},\n {"text": }]',
        "{} line 2: not JSON (Expecting value, column 11).",
    ),
    "word.json": (
        b'{"data": "a"}',
        '{}: must hold a list of objects, or {{"data": [...]}}, got a string.',
    ),
    "numbers.json": (b"[1, 2]", "{} row 1: a row must be an object, got a number."),
    "latin.jsonl": (
        '{"text": "one"}\n{"text": "café"}\n'.encode("latin-1"),
        "{} line 2: byte 0xe9 is not UTF-8. Save the file as UTF-8, or name its encoding: --set "
        "data.encoding=NAME.",
    ),
    "odd.txt": (
        b"\xff\xfea",
        "{} line 1: bytes that are not UTF-16. Save the file as UTF-8, or name its encoding: --set "
        "data.encoding=NAME.",
    ),
    "wide.csv": (
        b"prompt,completion\nHello, you,hi\n",
        "{} line 2: 3 fields where the header has 2. Text that holds the separator ',' needs "
        "double quotes around it.",
    ),
    "narrow.csv": (
        b"prompt,completion\nHello\n",
        "{} line 2: 1 field where the header has 2. A field without text still needs its "
        "separator ','.",
    ),
    "open.jsonl": (
        b'{"text": "a"}\n{"text": "b",\n{"text": "c"}\n',
        "{} line 2: not JSON (Expecting property name enclosed in double quotes, column 14). Each "
        'line must be one object, such as {{"text": "..."}}.',
    ),
    "rows.zst": (
        b"none",
        "{} has no ending before '.zst': known are .jsonl, .ndjson, .json, .csv, .tsv, .parquet, "
        ".arrow, .txt, each also with .gz, .bz2, .xz, .zst, .zip, a folder of them, or a data "
        "set's name on the Hub.",
    ),
    "quote.csv": (
        b'text\na\n"open\n',
        "{} line 3: broken quoting or field (unexpected end of data).",
    ),
    "twice.csv": (
        b"text,text\na,b\n",
        "{} line 1: column 'text' is there twice: rename one of the two. Nothing was written.",
    ),
    "bad.jsonl.gz": (
        b"not gzip",
        "{}: the gzip file ends too early or is damaged (Not a gzipped file (b'no')).",
    ),
    "data.xlsx": (
        b"PK",
        "{} has '.xlsx' as its ending: known are .jsonl, .ndjson, .json, .csv, .tsv, .parquet, "
        ".arrow, .txt, each also with .gz, .bz2, .xz, .zst, .zip, a folder of them, or a data "
        "set's name on the Hub.",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_told_in_one_line(tmp_path, name):
    content, message = BROKEN[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_table(path)
    assert str(caught.value) == message.format(path)


def test_a_line_that_is_not_json_is_named(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", ROWS * 8)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[36] = lines[36][:-1]
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_table(path)
    pattern = r"line 37: not JSON \(.+, column \d+\)\. Each line must be one object, such as "
    assert re.fullmatch(
        re.escape(f"{path} ") + pattern + re.escape('{"text": "..."}.'), str(caught.value)
    )


def test_a_cut_parquet_file(tmp_path):
    path = write_parquet(tmp_path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"train\.parquet: not a whole Parquet file \("):
        read_table(path)


@pytest.mark.parametrize("name", ["missing.jsonl", "data/missing.csv", "/nowhere/at-all"])
def test_a_missing_file(name):
    with pytest.raises(UserError) as caught:
        read_table(name)
    assert str(caught.value) == f"{name}: no such file or folder."


def test_an_empty_folder(tmp_path):
    (tmp_path / "data.xlsx").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        read_table(tmp_path)
    assert str(caught.value) == (
        f"Folder {tmp_path} holds no file with a known ending: .jsonl, .ndjson, .json, .csv, .tsv, "
        ".parquet, .arrow, .txt."
    )


def test_a_folder_with_texts_and_tables(tmp_path):
    write_jsonl(tmp_path)
    (tmp_path / "notes.txt").write_text("note", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_table(tmp_path)
    assert str(caught.value) == (
        f"Folder {tmp_path} holds both texts (notes.txt) and tables (train.jsonl): keep one kind "
        "in it, or name the file."
    )
