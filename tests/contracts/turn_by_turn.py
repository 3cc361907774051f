"""What must be scored of a conversation, from its rendering turn by turn: a slow, independent twin.

Knows nothing of heldout but ``Row`` and ``examples_of``: templates are rendered as transformers
does, what stands before each answer and what follows it is compared as text, and what an example
scores is decoded back into text.
"""

# Conversations are lists of messages as transformers takes them, with their tools.

import copy
import itertools
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from heldout.core.errors import UserError
from heldout.core.row import Row
from heldout.lm.row_tokens import examples_of

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SPECIAL = re.compile(
    r"<\|[^|{}<>\s]*\|>|<｜[^｜{}]*｜>|<\|\w+>|<\w+\|>|<(?:start|end)_of_(?:turn|utterance)>|</?s>"
)
EMPTY = (("<think>", "</think>"), ("<|channel>thought", "<channel|>"))  # that these templates write


def user(text):
    return {"role": "user", "content": text}


def answer(text, **more):
    return {"role": "assistant", "content": text, **more}


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


def result(text, name):
    return {"role": "tool", "name": name, "content": text}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weigh",
            "description": "Weighs a stone.",
            "parameters": {"type": "object", "properties": {"stone": {"type": "string"}}},
        },
    }
]
ONE = [user("Which stone is gray?"), answer("Slate is gray.")]
TWO = [*ONE, user("Which one is white?"), answer("Chalk is white.")]
THREE = [*TWO, user("Which one glows?"), answer("None of them does.")]
PLAIN = {"one turn": ONE, "two turns": TWO, "three turns": THREE}
CONVERSATIONS = {
    **PLAIN,
    "system": [{"role": "system", "content": "Speak of stones."}, *TWO],
    "reasoning last": [*ONE, user("And white?"), answer("Chalk.", reasoning_content="Soft ones.")],
    "reasoning everywhere": [
        user("Gray?"),
        answer("Slate.", reasoning_content="It splits."),
        user("White?"),
        answer("Chalk.", reasoning_content="It writes."),
    ],
    "reasoning in the content": [
        user("Gray?"),
        answer("<think>\nIt splits.\n</think>\n\nSlate."),
        user("White?"),
        answer("<think>\nIt writes.\n</think>\n\nChalk."),
    ],
    "empty reasoning": [*ONE, user("And white?"), answer("Chalk.", reasoning_content="")],
    "adjacent user turns": [user("Here is slate."), user("Which color?"), answer("It is gray.")],
    "tools": [
        user("How heavy is marble?"),
        answer("", tool_calls=[call("weigh", stone="block 17")]),
        result("It has 12 kilos.", "weigh"),
        answer("Marble has twelve."),
        user("And flint?"),
        answer("", tool_calls=[call("weigh", stone="nodule 4")]),
        result("It has 3 kilos.", "weigh"),
        answer("Flint has three."),
    ],
}


def template_names() -> list[str]:
    return sorted(path.stem for path in TEMPLATES.glob("*.jinja"))


@cache
def tokenizer_of(name: str):
    """A byte a token, and the special tokens of all templates; with the template of that name."""
    tokenizer = copy.deepcopy(_byte_tokenizer())
    tokenizer.chat_template = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


@cache
def _byte_tokenizer():
    written = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.glob("*.jinja"))
    special = sorted(set(SPECIAL.findall(written)))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: n for n, letter in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<|bos|>",
        eos_token="<|eos|>",
        pad_token="<|pad|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken(each, normalized=False) for each in special]}
    )
    return tokenizer


@dataclass
class Judged:
    """One conversation under one template."""

    template: str
    conversation: str
    refusal: str = ""  # the words of heldout
    needless: bool = False  # the refusal, of what is rendered whole
    wrong: list[str] = field(default_factory=list)  # of the mask
    lost: list[str] = field(default_factory=list)  # of the content, without a word
    num_examples: int = 0
    compared_with_patch: bool = False


def judge(template: str, name: str) -> Judged:
    judged = Judged(template, name)
    tokenizer = tokenizer_of(template)
    messages = CONVERSATIONS[name]
    tools = TOOLS if name == "tools" else []
    kept = tuple({k: v for k, v in m.items() if v or k == "content"} for m in messages)
    try:
        examples = examples_of(Row(0, kept, "a", tools=tuple(tools)), tokenizer)
    except UserError as error:
        judged.refusal = str(error)
        judged.needless = _is_rendered_whole(tokenizer, kept, tools)
        return judged
    judged.num_examples = len(examples)
    found = [turn for example in examples for turn in _scored_turns(example, tokenizer)]
    told = "".join(context + scored for context, scored in found)
    judged.lost = [text for text in _said(messages, tools) if text not in told]
    if "reasoning" in name and not judged.lost:
        learned = "".join(scored for _, scored in found)
        judged.lost = [text for text in _reasoned(messages) if text not in learned]
    wanted = _wanted_turns(tokenizer, kept, tools)
    if len(found) != len(wanted):
        judged.wrong.append(f"{len(found)} scored turns instead of {len(wanted)}")
    for (context, scored), (wanted_context, wanted_scored) in zip(found, wanted, strict=False):
        if context != wanted_context:
            judged.wrong.append(f"context {context[-60:]!r} instead of {wanted_context[-60:]!r}")
        if not _same(scored, wanted_scored):
            judged.wrong.append(f"scored {scored!r} instead of {wanted_scored!r}")
    judged.compared_with_patch = _beside_patch(template, kept, tools, found, judged.wrong)
    return judged


def _scored_turns(example, tokenizer) -> list[tuple[str, str]]:
    """(all that stands before, what is scored) of each run of scored tokens, as text."""
    turns, start = [], 0
    for scored, group in itertools.groupby(example.scored):
        stop = start + len(list(group))
        if scored:
            before, run = example.ids[:start], example.ids[start:stop]
            turns.append((tokenizer.decode(before), tokenizer.decode(run)))
        start = stop
    return turns


FORMS = list(itertools.product((False, True), repeat=3))


def _wanted_turns(tokenizer, messages, tools) -> list[tuple[str, str]]:
    """The same from the rendering turn by turn."""
    for parts, null, written in FORMS:
        given = [_given(message, parts, null, written) for message in messages]
        try:
            turns = [
                _wanted_turn(tokenizer, given, tools, place)
                for place, message in enumerate(given)
                if message["role"] == "assistant"
            ]
        except Exception:  # another form
            continue
        shown = "".join(context + scored for context, scored in turns)
        if all(text in shown for text in _said(messages, tools)):
            return turns
    raise AssertionError("no form of the conversation is rendered whole")


def _is_rendered_whole(tokenizer, messages, tools) -> bool:
    try:
        turns = _wanted_turns(tokenizer, messages, tools)
    except AssertionError:
        return False
    learned = "".join(scored for _, scored in turns)
    return all(text in learned for text in _reasoned(messages))


def _given(message, parts, null, written):
    new = dict(message)
    if parts:
        new["content"] = [{"type": "text", "text": new["content"]}] if new["content"] else []
    if "tool_calls" in new:
        if null:
            new["content"] = None
        if written:
            new["tool_calls"] = [
                {"type": "function", "function": {"name": f["name"], "arguments": _json(f)}}
                for f in (each["function"] for each in new["tool_calls"])
            ]
    return new


def _json(function):
    inner = ", ".join(f'"{key}": "{value}"' for key, value in function["arguments"].items())
    return "{" + inner + "}"


def _wanted_turn(tokenizer, messages, tools, place) -> tuple[str, str]:
    before = _rendered(tokenizer, messages[:place], tools, asks=True)
    after = _rendered(tokenizer, messages[: place + 1], tools)
    start = _num_alike(before, after)
    question = [{**messages[0], "role": "user"}]
    opening = _rendered(tokenizer, question, [], asks=True).removeprefix(
        _rendered(tokenizer, question, [])
    )
    if start == len(before) and not before.endswith(opening) and after[start:].startswith(opening):
        start += len(opening)
    message = messages[place]
    content = message["content"] if isinstance(message["content"], str) else ""
    if "reasoning_content" not in message and "</think>" not in content:
        for opening, closing in EMPTY:
            begin = after.rfind(opening, 0, start + len(opening) + 2)
            end = after.find(closing, max(begin, 0))
            if begin < 0 or end < 0 or after[begin + len(opening) : end].strip():
                continue
            behind = end + len(closing)
            if behind > start and not after[start : max(start, begin)].strip():
                start = behind + len(after[behind:]) - len(after[behind:].lstrip())
    if "{% generation" not in tokenizer.chat_template.replace("{%-", "{%"):
        return after[:start], after[start:]
    _, spans = _rendered(tokenizer, messages[: place + 1], tools, marks=True)
    own = [(max(start, begin), end) for begin, end in spans if end > start]
    return after[: own[0][0]], after[own[0][0] : own[-1][1]]


def _num_alike(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def _rendered(tokenizer, messages, tools, asks=False, template=None, marks=False):
    texts, spans = render_jinja_template(
        [[dict(message) for message in messages]],
        tools=tools or None,
        chat_template=template or tokenizer.chat_template,
        add_generation_prompt=asks,
        return_assistant_tokens_mask=marks,
        **tokenizer.special_tokens_map,
    )
    return (texts[0], spans[0]) if marks else texts[0]


def _same(scored: str, wanted: str) -> bool:
    """Equal up to white space behind the end, which must be a special token."""
    end = SPECIAL.search(scored[-40:])
    wanted = wanted.rstrip()
    if SPECIAL.search(wanted[-40:]) and SPECIAL.split(wanted)[-1] == "":
        return scored == wanted
    added = scored.removeprefix(wanted)
    return end is not None and SPECIAL.fullmatch(added.strip()) is not None


def _said(messages, tools) -> list[str]:
    texts = [each["function"]["description"] for each in tools]
    for message in messages:
        content = message["content"] or ""
        if isinstance(content, list):
            content = "".join(part["text"] for part in content)
        texts.append(content.split("</think>")[-1].strip())
        for each in message.get("tool_calls", ()):
            arguments = each["function"]["arguments"]
            values = arguments.values() if isinstance(arguments, dict) else [arguments]
            texts += [each["function"]["name"], *values]
    return texts


def _reasoned(messages) -> list[str]:
    texts = [message.get("reasoning_content", "") for message in messages]
    texts += [m["content"].split("</think>")[0].split("<think>")[-1].strip()
              for m in messages if "</think>" in m["content"]]  # fmt: skip
    return [text for text in texts if text]


def _beside_patch(template, messages, tools, found, wrong) -> bool:
    """Compare with TRL's patched template where that renders the same text, byte for byte."""
    patch = TEMPLATES / f"{template}_training.jinja"
    if not patch.exists() or not all(isinstance(m["content"], str) for m in messages):
        return False
    tokenizer = tokenizer_of(template)
    try:
        own = _rendered(tokenizer, messages, tools)
        text, spans = _rendered(
            tokenizer, messages, tools, template=patch.read_text(encoding="utf-8"), marks=True
        )
    except Exception:  # one of the two does not take this form
        return False
    if text != own or not spans:
        return False
    if not all(text.startswith((context + scored).rstrip()) for context, scored in found):
        return False  # the answers have renderings of their own
    marked = "".join(text[start:end] for start, end in spans)
    for _, scored in found:
        core = SPECIAL.split(scored)
        body = max(core, key=len)
        if body.strip() not in marked:
            wrong.append(f"{body!r} is scored, and TRL's patched template does not mark it")
    return True
