"""Rows of a fit: how much memory reading, splitting, writing and tokenizing them take a row.

What ``heldout fit`` does with its rows before the first step, without a model: they are read from
a jsonl file, split without leaks, written into a run folder with their hashes, read back as a
resume does, and tokenized by the embedded model's tokenizer. Rows are passages of 20 to 60 words
of real text. Each number of rows in a process of its own on one thread, so that the difference of
two peaks tells what a row takes. Memory of ``heldout check`` on a million rows is in the record
``check_scale``.

Criterion, set before the run: what a million rows take by that difference is under 8 GB.

    python benchmarks/million_rows.py [--rows 100000 200000] [--write]
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

from real_text import passages
from record import write_record

WORDS = (20, 60)
MOST_GB = 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[100_000, 200_000])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(Path(given.measure[0]), int(given.measure[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        digest = hashlib.sha256()
        with path.open("w", encoding="utf-8") as file:
            for text in passages(max(given.rows), words=WORDS):
                line = json.dumps({"text": text}) + "\n"
                digest.update(line.encode())
                file.write(line)
        table = [_in_a_process(path, num) for num in sorted(given.rows)]
    few, many = table
    rows = many["rows"] - few["rows"]
    bytes_a_row = (many["peak_gb"] - few["peak_gb"]) * 1e9 / rows
    figures = {
        "bytes_a_row": bytes_a_row,
        "text_bytes_a_row": (many["text_bytes"] - few["text_bytes"]) / rows,
        "gb_of_a_million_rows": few["peak_gb"] + (1e6 - few["rows"]) * bytes_a_row / 1e9,
        "processor_seconds_a_thousand_rows": 1000 * many["processor_seconds"] / many["rows"],
    }
    figures["met"] = float(figures["gb_of_a_million_rows"] < MOST_GB)
    print(json.dumps({"figures": figures, "table": table}, indent=2))
    if given.write:
        print(
            write_record(
                "million_rows", figures, table=table, seeds=[0], data_sha256=digest.hexdigest()
            )
        )


def _in_a_process(path: Path, num: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--measure", str(path), str(num)],
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout.splitlines()[-1])


def measured(path: Path, num: int) -> dict[str, Any]:
    """Peak of memory and seconds for the first rows of the file."""
    from heldout.core.recipe import Recipe
    from heldout.core.run import Run
    from heldout.jobs.kit.parts import load_parts, read_parts, write_parts
    from heldout.lm.load import load_tokenizer
    from heldout.training.windows import WindowDataset

    recipe, seconds = Recipe(), {}
    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder) / "some.jsonl"
        with path.open("rb") as file, some.open("wb") as first:
            first.writelines(islice(file, num))
        text_bytes = some.stat().st_size
        tokenizer = load_tokenizer("package:heldout")
        began, peaks = time.process_time(), {"imports": _peak_gb()}

        def done(name: str) -> None:
            seconds[name] = time.process_time() - began - sum(seconds.values())
            peaks[name] = _peak_gb()

        parts = read_parts(str(some), recipe)
        done("split")
        run = Run.create(Path(folder) / "run", recipe)
        write_parts(run, parts, recipe)
        done("written")
        del parts
        rows = load_parts(run).train
        done("read back")
        windows = WindowDataset(rows, tokenizer, recipe.data.max_length)
        done("tokens")
        return {
            "rows": num,
            "text_bytes": text_bytes,
            "tokens": int(windows.num_tokens),
            "peak_gb": peaks["tokens"],
            "processor_seconds": time.process_time() - began,
            "peaks_gb": peaks,
            "seconds": seconds,
        }


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
