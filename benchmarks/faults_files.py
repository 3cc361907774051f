"""Files of rows that are none, or odd ones, and what is expected of each."""

import gzip
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

GOOD = [
    {"text": f"Row {n} tells of the harbor, its {n} ships and what they carry."} for n in range(40)
]


def lines(*entries: object) -> bytes:
    return "".join(json.dumps(entry) + "\n" for entry in entries).encode()


def chat(**message: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", **message}]}


def deep(levels: int) -> bytes:
    return b'{"text": ' + b"[" * levels + b"]" * levels + b"}\n"


# name -> (file name, bytes, what the refusal must name besides the file)
BYTES: dict[str, tuple[str, bytes, str]] = {
    "empty": ("rows.jsonl", b"", "empty|no rows|holds no"),
    "blank lines": ("rows.jsonl", b"\n\n  \n", "empty|no rows|holds no"),
    "random bytes": ("rows.jsonl", bytes(range(256)) * 20, "line 1|JSON|encod|text"),
    "cut in a row": ("rows.jsonl", lines(*GOOD)[:-20], "line 40|row 40"),
    "a list in a line": ("rows.jsonl", lines(*GOOD[:3], [1, 2]), "line 4"),
    "a number in a line": ("rows.jsonl", lines(*GOOD[:3], 7), "line 4"),
    "null in a line": ("rows.jsonl", lines(*GOOD[:3], None), "line 4"),
    "no known column": ("rows.jsonl", lines({"foo": "x"}, {"foo": "y"}), "foo|column"),
    "text is a number": ("rows.jsonl", lines(*GOOD[:3], {"text": 5}), "line 4.*text"),
    "text is null": ("rows.jsonl", lines(*GOOD[:3], {"text": None}), "line 4.*text"),
    "text is a list": ("rows.jsonl", lines(*GOOD[:3], {"text": ["a"]}), "line 4.*text"),
    "all texts empty": ("rows.jsonl", lines({"text": ""}, {"text": " "}), "empty|line 1"),
    "messages is text": ("rows.jsonl", lines({"messages": "hi"}), "line 1"),
    "messages is empty": ("rows.jsonl", lines({"messages": []}), "line 1"),
    "message is text": ("rows.jsonl", lines({"messages": ["hi"]}), "line 1"),
    "content is a number": ("rows.jsonl", lines(chat(content=5)), "line 1"),
    "content is missing": ("rows.jsonl", lines(chat()), "line 1"),
    "role is a number": (
        "rows.jsonl",
        lines({"messages": [{"role": 1, "content": "x"}]}),
        "line 1.*role",
    ),
    "role is unknown": (
        "rows.jsonl",
        lines({"messages": [{"role": "martian", "content": "x"}]}),
        "line 1.*martian",
    ),
    "prompt alone": ("rows.jsonl", lines({"prompt": "x"}), "completion|prompt"),
    "completion is null": (
        "rows.jsonl",
        lines({"prompt": "x", "completion": None}),
        "line 1.*completion",
    ),
    "deep nesting": ("rows.jsonl", deep(100_000), "line 1|nest"),
    "a number of many digits": ("rows.jsonl", b'{"text": ' + b"9" * 10_000 + b"}\n", "line 1"),
    "NaN": ("rows.jsonl", b'{"text": NaN}\n', "line 1"),
    "a line of text": ("rows.jsonl", b"hello world\n", "line 1"),
    "single quotes": ("rows.jsonl", b"{'text': 'x'}\n", "line 1"),
    "a JSON list in .jsonl": ("rows.jsonl", json.dumps(GOOD, indent=1).encode(), "line 1|list"),
    "half an escape": (
        "rows.jsonl",
        b'{"text": "\\ud83d"}\n' + lines(*GOOD),
        "line 1|surrogate|half",
    ),
    "bytes of no encoding": ("rows.jsonl", b'{"text": "\xff\xfe\xfa"}\n', "line 1|encod|UTF-8"),
    "two kinds of rows": (
        "rows.jsonl",
        lines(GOOD[0], {"prompt": "a", "completion": "b"}),
        "line [12]",
    ),
    "one row": ("rows.jsonl", lines(GOOD[0]), "row"),
    "two equal rows": ("rows.jsonl", lines(GOOD[0], GOOD[0]), "row"),
    "a .json that is none": ("rows.json", b"{", "JSON"),
    "a .json number": ("rows.json", b"17", "list|rows"),
    "a .json of scalars": ("rows.json", b"[1, 2, 3]", "row|1"),
    "a .json object": ("rows.json", b'{"a": 1}', "a|column|list|rows"),
    "an empty .csv": ("rows.csv", b"", "empty|no rows|holds no"),
    "a header alone": ("rows.csv", b"text\n", "empty|no rows|holds no"),
    "a .csv without text": ("rows.csv", b"a,b\n1,2\n", "column|a"),
    "ragged rows": (
        "rows.csv",
        b"text,more\nx,1\ny\nz,1,2,3\n",
        "line [34]|row [23]|fields|columns",
    ),
    "an open quote": ("rows.csv", b'text\n"never ends\nx\ny\n', "quote|line"),
    "a column twice": ("rows.csv", b"text,text\nx,y\n", "text"),
    "NUL in a .csv": ("rows.csv", b"text\nx\x00y\n" + b"z\n" * 5, ""),
    "a .parquet of text": ("rows.parquet", b"PAR1 hello", "parquet|Parquet"),
    "an empty .parquet": ("rows.parquet", b"", "empty|parquet|Parquet"),
    "an empty .txt": ("rows.txt", b"", "empty|no rows|holds no"),
    "a .txt of blanks": ("rows.txt", b" \n\n \t\n", "empty|no rows|holds no"),
    "a cut .gz": ("rows.jsonl.gz", gzip.compress(lines(*GOOD))[:-20], "gz|cut|end|packed"),
    "a .gz that is none": ("rows.jsonl.gz", b"hello", "gz|packed"),
    "a .gz of zeros": ("rows.jsonl.gz", gzip.compress(bytes(80 * 2**20)), "max_unpack_ratio"),
    "a .zip that is none": ("rows.zip", b"hello", "zip|packed"),
    "a .xz that is none": ("rows.jsonl.xz", b"hello", "xz|packed"),
    "a .zst that is none": ("rows.jsonl.zst", b"hello", "zst|packed"),
    "a pickle": ("rows.pkl", b"\x80\x04N.", "pkl|ending|format|know"),
    "a .xlsx": ("rows.xlsx", b"PK\x03\x04", "xlsx|ending|format|know"),
    "no ending": ("rows", b"hello", "ending|format|know"),
}


def a_directory(at: Path) -> str:
    (at / "rows.jsonl").mkdir()
    return "rows.jsonl"


def an_empty_folder(at: Path) -> str:
    (at / "rows").mkdir()
    return "rows"


def a_folder_of_pictures(at: Path) -> str:
    (at / "rows").mkdir()
    (at / "rows" / "a.png").write_bytes(b"\x89PNG")
    return "rows"


def a_loop_of_links(at: Path) -> str:
    (at / "rows.jsonl").symlink_to("rows.jsonl")
    return "rows.jsonl"


def a_broken_link(at: Path) -> str:
    (at / "rows.jsonl").symlink_to("nowhere.jsonl")
    return "rows.jsonl"


def a_pipe(at: Path) -> str:
    os.mkfifo(at / "rows.jsonl")
    return "rows.jsonl"


def a_pipe_in_a_folder(at: Path) -> str:
    (at / "rows").mkdir()
    os.mkfifo(at / "rows" / "train.jsonl")
    return "rows"


def a_zip_that_climbs(at: Path) -> str:
    with zipfile.ZipFile(at / "rows.zip", "w") as file:
        file.writestr("../../climbed.jsonl", lines(*GOOD))
        file.writestr("picture.png", b"x")
    return "rows.zip"


def a_part_that_is_broken(at: Path) -> str:
    (at / "rows").mkdir()
    (at / "rows" / "train.jsonl").write_bytes(lines(*GOOD))
    (at / "rows" / "test.jsonl").write_bytes(b"{broken\n")
    return "rows"


OTHERS: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (lambda at: "nowhere.jsonl", "nowhere.jsonl"),
    "an empty name": (lambda at: "", "data|DATA"),
    "a name of many letters": (lambda at: "x" * 300 + ".jsonl", "x{50}"),
    "a name of control characters": (lambda at: "a\x1b[31mb.jsonl", "b.jsonl"),
    "a name with a line break": (lambda at: "a\nb.jsonl", "b.jsonl"),
    "a Hub name": (lambda at: "someone/some-rows", "someone/some-rows"),
    "an address": (lambda at: "https://example.org/rows.jsonl", "https://example.org/rows.jsonl"),
    "a device": (lambda at: "/dev/null", "/dev/null"),
    "a device without end": (lambda at: "/dev/zero", "/dev/zero"),
    "a folder named so": (a_directory, "rows.jsonl"),
    "an empty folder": (an_empty_folder, "rows"),
    "a folder of pictures": (a_folder_of_pictures, "rows"),
    "a loop of links": (a_loop_of_links, "rows.jsonl"),
    "a broken link": (a_broken_link, "rows.jsonl"),
    "a pipe": (a_pipe, "rows.jsonl"),
    "a pipe in a folder": (a_pipe_in_a_folder, "train.jsonl|rows"),
    "a zip that climbs": (a_zip_that_climbs, "rows.zip"),
    "a part that is broken": (a_part_that_is_broken, "test.jsonl.*line 1"),
}


def file_cases() -> dict[str, tuple[Callable[[Path], str], tuple[str, ...]]]:
    """Name -> what makes it in a folder and returns the argument, and patterns of the refusal."""

    def maker(name: str, content: bytes) -> Callable[[Path], str]:
        def make(at: Path) -> str:
            (at / name).write_bytes(content)
            return name

        return make

    found = {
        name: (maker(file, content), (f"\\b{file}\\b|The data holds|the training text", words))
        for name, (file, content, words) in BYTES.items()
    }
    return found | {name: (make, (words,)) for name, (make, words) in OTHERS.items()}
