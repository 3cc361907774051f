"""One million rows, about a gigabyte of text: rows per second and memory of the whole check.

``ours`` is ``heldout check`` with all that it does without a model: reading, exact and near
duplicates, shared spans, faults, personal data, the word model. ``peer`` is datasketch as its
documentation uses it for near duplicates alone: MinHash of 128 permutations over the same five-word
shingles, by ``update_batch``, into a MinHashLSH with the same threshold, each row queried before it
is inserted; on the first rows of the same file, since its rate does not depend on their number.
Each runs in a process of its own on one thread, one after the other.

    python benchmarks/check_scale.py [--rows 1000000] [--peer-rows 50000] [--write]
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from real_text import passages
from record import write_record

THRESHOLD = 0.5


def ours(path: Path, num: int) -> dict[str, float]:
    from heldout.jobs.checking.check import check

    start, processor = time.perf_counter(), time.process_time()
    result = check(path)
    seconds = time.perf_counter() - start
    counts = result.counts
    return {
        "rows": result.rows,
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "exact": counts["duplicates_exact"],
        "near": counts["duplicates_near"],
        "span": counts["duplicates_span"],
    }


def peer(path: Path, num: int) -> dict[str, float]:
    from datasketch import MinHash, MinHashLSH

    start, processor = time.perf_counter(), time.process_time()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    found = rows = 0
    with path.open(encoding="utf-8") as file:
        for line in file:
            words = json.loads(line)["text"].casefold().split()
            sketch = MinHash(num_perm=128)
            pieces = {" ".join(words[at : at + 5]).encode() for at in range(len(words) - 4)}
            sketch.update_batch(list(pieces))
            found += bool(index.query(sketch))
            index.insert(str(rows), sketch)
            rows += 1
            if rows == num:
                break
    seconds = time.perf_counter() - start
    return {
        "rows": rows,
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "with_a_match": found,
    }


def in_a_process(name: str, path: Path, num: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", name, "--path", str(path), "--rows", str(num)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--peer-rows", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="record the result")
    parser.add_argument("--path", type=Path, help="rows that were written before")
    parser.add_argument("--child", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        found = {"ours": ours, "peer": peer}[options.child](options.path, options.rows)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(json.dumps({**found, "peak_gb": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.path or Path(folder) / "rows.jsonl"
        if options.path is None or not path.exists():
            with path.open("w", encoding="utf-8") as file:
                for text in passages(options.rows, seed=options.seed, words=(60, 260)):
                    file.write(json.dumps({"text": text}) + "\n")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        gigabytes = path.stat().st_size / 1e9
        theirs = in_a_process("peer", path, options.peer_rows)
        print("peer", theirs, flush=True)
        own = in_a_process("ours", path, options.rows)
        print("ours", own, flush=True)
    figures = {
        "rows": own["rows"],
        "gigabytes": gigabytes,
        "rows_per_second": own["rows"] / own["seconds"],
        "peer_rows_per_second": theirs["rows"] / theirs["seconds"],
        "rows_per_processor_second": own["rows"] / own["processor_seconds"],
        "peer_rows_per_processor_second": theirs["rows"] / theirs["processor_seconds"],
        "peer_rows": theirs["rows"],
        "peer_peak_gb": theirs["peak_gb"],
        "seconds": own["seconds"],
    }
    figures["peak_gb_1m_rows" if own["rows"] == 1_000_000 else "peak_gb"] = own["peak_gb"]
    print(json.dumps(figures, indent=2))
    if options.write:
        write_record(
            "check_scale",
            figures,
            table=[{"who": "heldout check", **own}, {"who": "datasketch", **theirs}],
            seeds=[options.seed],
            data_sha256=digest,
            note=f"peer: datasketch {version('datasketch')}, near duplicates alone; peak_gb is the "
            "largest resident set, which counts mapped files as well",
        )


if __name__ == "__main__":
    main()
