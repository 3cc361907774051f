"""torchtune's log on disk or on the console: ``Step 10 | loss:2.7 lr:0.0001``.

torchtune 0.6.1, ``training/metric_logging.py``. It counts no epochs in it.
"""

import re
from pathlib import Path

from heldout.jobs.diagnosing.raw_log import RawLog, raw_log, text_of

READS = "torchtune's log_*.txt"
PLACES = ("log_*.txt", "*.log", "*.out", "*.txt")

_LINE = re.compile(r"Step (\d+) \| (.*)")
_PAIR = re.compile(r"([\w/.-]+):(\S+)")


def read(path: Path, head: bytes) -> RawLog | None:
    """Steps and figures of the lines that have them."""
    if not _LINE.search(head.decode("utf-8", "replace")):
        return None
    lines = _LINE.finditer(text_of(path))
    return raw_log([{**dict(_PAIR.findall(line[2])), "step": int(line[1])} for line in lines])
