"""A byte-level BPE tokenizer as the metadata of a GGUF file, and whether it came back the same.

llama.cpp names its ways to split a text before merging. Which one a tokenizer has is found by
trying: each is put into a copy of it, and the tokens of texts are compared.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heldout.core.errors import UserError

_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+"
_CASED_UPPER = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_CASED_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"


@dataclass(frozen=True)
class _Split:
    """A way of llama.cpp to split, by the name in ``tokenizer.ggml.pre``."""

    name: str
    patterns: tuple[str, ...]
    ignores_merges: bool = False  # a word that is a token is taken whole


# As llm_tokenizer_bpe of llama.cpp has them.
_SPLITS = (
    _Split("gpt-2", (_GPT_2,)),
    _Split("smollm", (r"\p{N}", _GPT_2)),
    _Split("qwen2", (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}|{_REST}",)),
    _Split("llama-bpe", (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}|{_REST}",), True),
    _Split("tekken", (rf"{_CASED}|{_CASED_UPPER}|\p{{N}}|{_CASED_REST}",), True),
    _Split(
        "gpt-4o",
        (
            rf"{_CASED}{_CONTRACTIONS}?|{_CASED_UPPER}{_CONTRACTIONS}?|\p{{N}}{{1,3}}"
            rf"|{_CASED_REST}",
        ),
    ),
)
# What splits differ in: digits, contractions, capitals, line ends, spaces, scripts, marks.
TRIED = (
    "In 2024, 1,234,567 people said 'I'll, WE'LL, they've'; HTTPServer camelCase x=3.14159!!\n\n",
    "\tdef f(x):\n\t\treturn x**2   # twice  \r\n\r\n  end...   \n \n",
    "水的沸点是100摄氏度，登山者说：“在4000米处煮饭更久。”",
    "Größe naïve ﬁn 한국어 русский язык العربية 😀👍🏽 a/b//c _under_score_ — ‘quoted’",
)
_GENERATION = re.compile(r"\{%(-?) *(end)?generation *(-?)%\}")
_TALK = [{"role": "user", "content": "1 + 1 = ?"}, {"role": "assistant", "content": "2。"}]


@dataclass(frozen=True)
class GgufTokenizer:
    """Tokens by id, merges and special tokens, as the file holds them."""

    split: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]  # of gguf.TokenType
    merges: tuple[str, ...]
    special: dict[str, int]  # bos, eos, unk, pad -> id
    adds_bos: bool
    chat_template: str


def gguf_tokenizer(tokenizer: Any, vocabulary: int, texts: Sequence[str]) -> GgufTokenizer:
    """``tokenizer`` for a model of ``vocabulary`` embeddings; rows without a token are unused.

    Raises UserError where it is no byte-level BPE, or splits as llama.cpp does not on ``texts``
    and on a few hard ones.
    """
    from gguf import TokenType

    backend = getattr(tokenizer, "backend_tokenizer", None)
    about = json.loads(backend.to_str()) if backend is not None else {}
    model = about.get("model") or {}
    if model.get("type") != "BPE" or '"ByteLevel"' not in json.dumps(about.get("pre_tokenizer")):
        raise UserError(
            "--gguf writes byte-level BPE tokenizers alone, and the model has another kind"
        )
    split = _split_of(backend, bool(model.get("ignore_merges")), [*TRIED, *texts])
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    added = tokenizer.added_tokens_decoder
    types = []
    for number in range(vocabulary):
        if number not in by_id:
            types.append(int(TokenType.UNUSED))
        elif number in added:
            special = added[number].special
            types.append(int(TokenType.CONTROL if special else TokenType.USER_DEFINED))
        else:
            types.append(int(TokenType.NORMAL))
    merges = (each if isinstance(each, str) else " ".join(each) for each in model["merges"])
    ids = {
        name: getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "unk", "pad")
    }
    begins = tokenizer("a").input_ids[:1]
    template = tokenizer.chat_template
    return GgufTokenizer(
        split=split,
        tokens=tuple(by_id.get(number, f"[PAD{number}]") for number in range(vocabulary)),
        types=tuple(types),
        merges=tuple(merges),
        special={name: number for name, number in ids.items() if number is not None},
        adds_bos=ids["bos"] is not None and begins == [ids["bos"]],
        chat_template=_without_marks(template) if isinstance(template, str) else "",
    )


def _without_marks(template: str) -> str:
    """Without the marks of what is trained, which a server need not know; spaces stay as they are.

    Blocks take their place, since a template may strip the line end after a block.
    """
    return _GENERATION.sub(
        lambda found: f"{{%{found[1]} {'endif' if found[2] else 'if true'} {found[3]}%}}", template
    )


def refuse_other_tokens(read: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """UserError where the tokenizer ``read`` from the file makes something else of texts."""
    for text in [*TRIED, *texts]:
        first, second = (
            each(text, add_special_tokens=False).input_ids for each in (tokenizer, read)
        )
        if first != second:
            raise UserError(f"its tokenizer came back other than it was: {text[:40]!r} differs")
    for name in ("bos", "eos"):
        wanted = getattr(tokenizer, f"{name}_token_id")
        if wanted is not None and wanted != getattr(read, f"{name}_token_id"):
            raise UserError(f"its {name} token came back other than it was")
    if not isinstance(tokenizer.chat_template, str):
        return
    rendered = [
        each.apply_chat_template(_TALK, tokenize=False, add_generation_prompt=opens)
        for opens in (False, True)
        for each in (tokenizer, read)
    ]
    if rendered[0::2] != rendered[1::2]:
        raise UserError("its chat template came back other than it was")


def _split_of(backend: Any, ignores_merges: bool, texts: Sequence[str]) -> str:
    """The way that cuts the same pieces, else one that leads to the same tokens."""
    wanted = [_pieces(backend, text) for text in texts]
    tokens = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    alike = ""
    for split in _SPLITS:
        if split.ignores_merges != ignores_merges:
            continue
        tried = _with_split(backend, split)
        if [tried.encode(text, add_special_tokens=False).ids for text in texts] == tokens:
            if [_pieces(tried, text) for text in texts] == wanted:
                return split.name
            alike = alike or split.name
    if not alike:
        raise UserError(
            "--gguf found no way of llama.cpp to split text as the model's tokenizer does"
        )
    return alike


def _pieces(backend: Any, text: str) -> list[str]:
    return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]


def _with_split(backend: Any, split: _Split) -> Any:
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    tried = Tokenizer.from_str(backend.to_str())
    parts: list[Any] = [
        pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in split.patterns
    ]
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tried.pre_tokenizer = pre_tokenizers.Sequence(parts)
    return tried
