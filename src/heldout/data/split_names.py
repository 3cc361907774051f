"""Names by which files, folders and keys say of which part of a split they are.

The words are those of the Hub, of MLX and of scripts that write such files. A word counts where it
is the whole name, but for the number of a shard, or stands at one of its ends; in the middle of a
name only where the names of all parts are the same without it.
"""

import re
from collections.abc import Mapping, Sequence

from heldout.core.row import Part

_PARTS: dict[Part, tuple[str, ...]] = {
    "train": ("train", "training", "trainset", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "testset", "heldout"),
}
_EVAL = ("eval", "evaluation")  # the test part where there is no other, else the validation part
_PART_OF = {word: part for part, words in _PARTS.items() for word in words}
_SHARD = re.compile(r"[-_.]?\d+(-of-\d+)?(-[0-9a-f]{8,})?$")
_SET = re.compile(r"[-_. ](set|data|split)$")
_APART = re.compile(r"[-_. ]+")


def part_named(name: str) -> str:
    """The part, or eval, whose word is the whole name; empty for other names."""
    plain = _SET.sub("", _SHARD.sub("", name.lower()))
    return "eval" if plain in _EVAL else _PART_OF.get(plain, "")


def part_at_an_end(name: str) -> str:
    """The part, or eval, whose word begins or ends the name."""
    words = [word for word in _APART.split(_SHARD.sub("", name.lower())) if word]
    while words and words[-1] in ("set", "data", "split"):
        words.pop()
    found = [part_named(words[place]) for place in (0, -1)] if words else []
    return next(filter(None, found), "")


def part_within(name: str) -> tuple[str, str]:
    """(part or eval, the name without its word) of a word anywhere in the name."""
    words = [word for word in _APART.split(_SHARD.sub("", name.lower())) if word]
    for place, word in enumerate(words):
        if part := part_named(word):
            return part, "-".join(words[:place] + words[place + 1 :])
    return "", name


def with_eval(parts: Mapping[str, Sequence[str]]) -> dict[Part, list[str]]:
    """Names by their part, where eval has become the part that is not there."""
    found: dict[Part, list[str]] = {part: list(parts[part]) for part in _PARTS if parts.get(part)}
    if parts.get("eval"):
        place: Part = "validation" if "test" in found and "validation" not in found else "test"
        if place not in found:
            found[place] = list(parts["eval"])
    return found


def is_split(parts: Mapping[Part, Sequence[str]]) -> bool:
    """Whether there is something to train on and something that is held out."""
    return "train" in parts and len(parts) >= 2


def parts_of_names(names: Sequence[str], are_texts: bool) -> dict[Part, list[str]]:
    """Which of the files, by their names inside a folder, make up which part; none: no split.

    ``are_texts``: each file is a document, whose title may hold any word; then only whole names
    count, or words that leave the same name in all parts.
    """
    whole = {name: _whole_part(name) for name in names}
    if not are_texts:
        ends = {name: whole[name] or _part_at_ends(name) for name in names}
        exact = {part for part in whole.values() if part}
        # train_notes.jsonl beside train.jsonl is something else.
        ends = {n: part for n, part in ends.items() if whole[n] or part not in exact}
    else:
        ends = whole
    found = _split(ends)
    if found:
        return found
    within = {name: part_within(_stem(name)) for name in names}
    rests = {rest for part, rest in within.values() if part}
    if len(rests) == 1 and all(part for part, _ in within.values()):
        return _split({name: part for name, (part, _) in within.items()})
    return {}


def _split(part_of: Mapping[str, str]) -> dict[Part, list[str]]:
    members: dict[str, list[str]] = {}
    for name, part in part_of.items():
        if part:
            members.setdefault(part, []).append(name)
    found = with_eval(members)
    return found if is_split(found) else {}


def _whole_part(name: str) -> str:
    """By the nearest folder that is named after a part, else by the file's own name."""
    *folders, _ = name.split("/")
    named = [part for part in map(part_named, reversed(folders)) if part]
    return named[0] if named else part_named(_stem(name))


def _part_at_ends(name: str) -> str:
    *folders, _ = name.split("/")
    found = map(part_at_an_end, [_stem(name), *reversed(folders)])
    return next(filter(None, found), "")


def _stem(name: str) -> str:
    """The file's own name without its endings."""
    file = name.rsplit("/", 1)[-1]
    known = r"(\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|txt|gz|bz2|xz|zst|zip))+$"
    return re.sub(known, "", file, flags=re.IGNORECASE)
