"""Passages of speeches and their tokens."""

import hashlib
import json
import random
import re
import sys
from functools import cached_property
from pathlib import Path

from times_data.settings import LENGTH, PASSAGES, TIMES, VOCABULARY
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from heldout.lm.tokenize import Window

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "pretrain_demo_model"))
from corpus import read_corpus

END = "<|endoftext|>"
PASSAGE = 2400  # characters, about
TOKENIZER_PASSAGES = 256  # the tokenizer learns from them
SPEECHES = {"validation": 24, "test": 60}
HELD_OUT_PASSAGES = {"validation": 48, "test": 180}


class Data:
    """Passages and their tokens; the parts do not share a speech."""

    def __init__(self) -> None:
        corpus = read_corpus()
        # After the speeches come the chapters of the Bible, which are not used.
        first = next(i for i, t in enumerate(corpus.train) if t.startswith("In the beginning God"))
        speeches = corpus.train[:first] + corpus.validation + corpus.later
        random.Random(0).shuffle(speeches)
        parts: dict[str, list[tuple[str, str]]] = {}
        start = 0
        for name, number in (*SPEECHES.items(), ("train", len(speeches))):
            chosen = list(enumerate(speeches))[start : start + number]
            start += number
            found = [(str(i), passage) for i, speech in chosen for passage in passages(speech)]
            random.Random(1).shuffle(found)
            parts[name] = found[: HELD_OUT_PASSAGES.get(name, PASSAGES * TIMES[-1])]
        self.parts = parts
        texts = [text for _, text in parts["train"]]
        self.tokenizer = trained_tokenizer(texts[:TOKENIZER_PASSAGES])
        self.train = [self.tokenizer(text).input_ids for text in texts]

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(json.dumps(self.parts).encode()).hexdigest()

    def tokens(self, times: int) -> int:
        return sum(len(ids) + 1 for ids in self.train[: times * PASSAGES])

    def windows(self, part: str) -> tuple[list[Window], list[str]]:
        """Windows of a held-out part and their speeches; every token of a passage is scored."""
        windows, groups = [], []
        for group, text in self.parts[part]:
            ids = [self.tokenizer.eos_token_id, *self.tokenizer(text).input_ids]
            for first in range(0, len(ids) - 1, LENGTH - 1):
                piece = ids[first : first + LENGTH]
                windows.append(Window(piece, [-100, *piece[1:]]))
                groups.append(group)
        return windows, groups


def passages(speech: str) -> list[str]:
    """Pieces that end with a sentence."""
    pieces, current = [], ""
    for sentence in re.split(r"(?<=[.!?]) +", speech):
        current = f"{current} {sentence}".strip()
        if len(current) >= PASSAGE:
            pieces.append(current)
            current = ""
    return pieces


def trained_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=END, pad_token=END)
