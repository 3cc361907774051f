"""Conversations as a model's chat template renders them, with nothing lost unnoticed.

Templates differ in the form that they take: some render a content only as a list of parts, some
want the arguments of a call as JSON text. The forms are tried in turn, on words that stand for the
texts of the conversation, and the first that loses none of them is taken.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from transformers.utils.chat_template_utils import render_jinja_template

from heldout.core.errors import UserError
from heldout.core.row import Message, Row, is_learned

_GENERATION_TAG = re.compile(r"\{%-?\s*generation\s*-?%\}")
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
_USE_ANOTHER = (
    "use a model or a tokenizer.chat_template that renders it, or write it into a message that is "
    "rendered"
)


@dataclass(frozen=True)
class Form:
    """How messages are handed to a template."""

    parts: bool = False  # content as a list of one part of text
    written: bool = False  # arguments of calls as JSON text
    null: bool = False  # no content beside calls as none, not as an empty text
    numbered: bool = False  # calls without an id get one of nine characters, in their order


@dataclass(frozen=True)
class Rendering:
    """One row under one template, in the form that the template takes."""

    row: Row
    tokenizer: Any
    form: Form

    def text(self, stop: int, *, asks: bool = False) -> str:
        """The first ``stop`` messages, with the beginning of an answer if it ``asks`` for one."""
        return _applied(self.row, stop, self.tokenizer, self.form, asks)

    def generated(self, stop: int) -> tuple[str, list[tuple[int, int]]]:
        """The first ``stop`` messages, and what the template marks with {% generation %}."""
        (text,), (spans,) = _rendered(self.row, stop, self.tokenizer, self.form, marks=True)
        return text, [(start, end) for start, end in spans]

    def opening(self) -> str:
        """What asks for the answer to a first question."""
        arguments = self.row.template_arguments
        row = Row(0, ({"role": "user", "content": "a"},), "", template_arguments=arguments)
        plain, asking = (
            _applied(row, 1, self.tokenizer, self.form, asks) for asks in (False, True)
        )
        return asking.removeprefix(plain)

    def check(self, text: str, stop: int, known: int = 0) -> None:
        """Raise UserError where a text of the first ``stop`` messages is not in their rendering.

        Those of the first ``known`` are known to be in it.
        """
        squeezed = ""
        for what, piece in _pieces(self.row.messages[:stop], self.row.tools, known):
            if piece.strip() in text:
                continue
            squeezed = squeezed or _squeezed(text)
            written = json.dumps(piece, ensure_ascii=False)[1:-1]
            if _squeezed(piece) not in squeezed and _squeezed(written) not in squeezed:
                raise _lost(self.row, what)


def rendering(row: Row, tokenizer: Any) -> Rendering:
    """The row in the form that the chat template takes.

    Raises UserError, which names the row, where the template refuses it or would lose some of it.
    """
    return Rendering(row, tokenizer, _form(row, tokenizer))


def marks_answers(tokenizer: Any, row: Row) -> bool:
    """Whether the template says by {% generation %} what an assistant's answer is."""
    return bool(_GENERATION_TAG.search(_template(tokenizer, row)))


def with_template_arguments(tokenizer: Any, arguments: Mapping[str, Any]) -> Any:
    """The tokenizer, its chat template with these arguments where a caller gives no others.

    They become part of the template, so that a model that is saved with it has them too.
    """
    if not arguments or not tokenizer.chat_template:
        return tokenizer
    first = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {json.dumps(value)} %}}{{% endif %}}"
        for name, value in sorted(arguments.items())
    )

    def changed(template: str) -> str:
        # The environment takes off one line break behind a block.
        first_line = "\n" if template.startswith("\n") else ""
        return template if template.startswith(first) else first + first_line + template

    templates = tokenizer.chat_template
    if isinstance(templates, dict):
        tokenizer.chat_template = {name: changed(each) for name, each in templates.items()}
    else:
        tokenizer.chat_template = changed(templates)
    return tokenizer


def _template(tokenizer: Any, row: Row) -> str:
    try:
        return tokenizer.get_chat_template(tools=list(row.tools) or None)
    except ValueError:
        raise UserError(
            "The data are conversations, but the tokenizer has no chat template: set "
            "tokenizer.chat_template and save it with the model, or give the data as prompt and "
            "completion."
        ) from None


def _applied(row: Row, stop: int, tokenizer: Any, form: Form, asks: bool) -> str:
    return _rendered(row, stop, tokenizer, form, asks=asks)[0][0]


def _rendered(
    row: Row, stop: int, tokenizer: Any, form: Form, *, asks: bool = False, marks: bool = False
) -> Any:
    """([text], [spans that are marked as generated])"""
    template = _template(tokenizer, row)
    # Not apply_chat_template: it leaves out a content that is none, which some templates ask for.
    try:
        return render_jinja_template(
            [_handed_over(row.messages[:stop], form)],
            tools=list(row.tools) or None,
            chat_template=template,
            add_generation_prompt=asks,
            return_assistant_tokens_mask=marks,
            **(tokenizer.special_tokens_map | row.template_arguments),
        )
    except Exception as error:  # jinja2's, or whatever a template meets that it was not written for
        raise _refused(row, error) from error


def _refused(row: Row, error: Exception) -> UserError:
    return UserError(f"{row.place}: the chat template refuses this conversation: {error}")


def _lost(row: Row, what: str) -> UserError:
    return UserError(
        f"{row.place}: the chat template does not render {what}, which would be lost: "
        f"{_USE_ANOTHER}."
    )


# The form that a template takes

_FORMS: WeakKeyDictionary[Any, dict[Any, Form | str]] = WeakKeyDictionary()


def _form(row: Row, tokenizer: Any) -> Form:
    """Found once for each shape of a conversation under each template."""
    known = _FORMS.setdefault(tokenizer, {})
    arguments = json.dumps(row.template_arguments, sort_keys=True, default=str)
    shape = (_template(tokenizer, row), bool(row.tools), arguments, *map(_shape, row.messages))
    if shape not in known:
        known[shape] = _first_form(row, tokenizer)
    found = known[shape]
    if isinstance(found, Form):
        return found
    if found:
        raise _lost(row, found)
    _applied(row, len(row.messages), tokenizer, Form(), asks=False)  # says what is refused
    return Form()


def _shape(message: Message) -> tuple:
    thinks = bool(_THOUGHT.match(message["content"]))
    optional = [key in message for key in ("reasoning_content", "name", "tool_call_id")]
    calls = [(bool(c["function"]["arguments"]), "id" in c) for c in message.get("tool_calls", ())]
    said = bool(message["content"].strip())
    return message["role"], said, thinks, is_learned(message), *optional, *calls


def _first_form(row: Row, tokenizer: Any) -> Form | str:
    """The first form that loses nothing; else what is lost, "" where all forms are refused."""
    stands_in = _stand_in(row)
    calls = any("tool_calls" in message for message in row.messages)
    choices = (False, True) if calls else (False,)
    lost: list[list[str]] = []
    for parts, numbered, null, written in itertools.product((False, True), *(choices,) * 3):
        form = Form(parts, written, null, numbered)
        try:
            lost.append(_what_is_lost(stands_in, tokenizer, form))
        except UserError:
            continue
        if not lost[-1]:
            return form
    return min(lost, key=len)[0] if lost else ""


def _what_is_lost(row: Row, tokenizer: Any, form: Form) -> list[str]:
    """What of the row is not in the rendering that ends with an answer, for each answer."""
    lost = []
    for place, message in enumerate(row.messages):
        if is_learned(message) or place == len(row.messages) - 1:
            text = _applied(row, place + 1, tokenizer, form, asks=False)
            pieces = _pieces(row.messages[: place + 1], row.tools)
            lost += [what for what, piece in pieces if piece.strip() not in text]
    return lost


def _pieces(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], first: int = 0
) -> Iterator[tuple[str, str]]:
    """(what it is, text) of all that must be found where the last message is an answer.

    From message ``first`` on, counted from 0; of the tools only with the very first message.
    """
    if not first:
        for tool in tools:
            yield "the tools", str(tool.get("function", tool).get("name", ""))
    last = len(messages) - 1
    for place, message in enumerate(messages[first:], first):
        of = f"of message {place + 1} ({message['role']})"
        content = message["content"]
        thought = _THOUGHT.match(content) if message["role"] == "assistant" else None
        if thought:
            content = thought[2]
            if place == last:
                yield f"the reasoning {of}", thought[1]
        if place == last and message.get("reasoning_content"):
            yield f"the reasoning {of}", message["reasoning_content"]
        if place == last or "tool_calls" not in message or not is_learned(message):
            # What is said beside a call is a thought to some templates, and later left out as one.
            yield f"the content {of}", content
        for call in message.get("tool_calls", ()):
            yield f"the tool calls {of}", call["function"]["name"]
            for leaf in _leaves(call["function"]["arguments"]):
                yield f"the tool calls {of}", leaf


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key)
            yield from _leaves(each)
    elif isinstance(value, Sequence):
        for each in value:
            yield from _leaves(each)


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _stand_in(row: Row) -> Row:
    """The same conversation, each of its texts a word of its own that no template holds."""
    numbers = itertools.count(1)

    def word() -> str:
        return f"zq{next(numbers)}qz"

    def call(known: Mapping[str, Any]) -> dict[str, Any]:
        arguments = {word(): word()} if known["function"]["arguments"] else {}
        return {**known, "function": {"name": word(), "arguments": arguments}}

    def turn(message: Message) -> Message:
        content = message["content"]
        if _THOUGHT.match(content):
            content = f"<think>\n{word()}\n</think>\n\n{word()}"
        elif content.strip():
            content = word()
        new = {**message, "content": content}
        if "reasoning_content" in message:
            new["reasoning_content"] = word()
        if "tool_calls" in message:
            new["tool_calls"] = [call(each) for each in message["tool_calls"]]
        return new

    schema = {"type": "object", "properties": {word(): {"type": "string"}}}
    function = {"name": word(), "description": word(), "parameters": schema}
    tools = ({"type": "function", "function": function},) if row.tools else ()
    return replace(row, messages=tuple(map(turn, row.messages)), tools=tools)


def _handed_over(messages: Sequence[Message], form: Form) -> list[dict[str, Any]]:
    """Messages as the template is to get them."""
    numbers = itertools.count(1)
    named: dict[str, str] = {}  # id of a call -> the function's name
    unanswered: list[str] = []
    found = []
    for message in messages:
        new = {key: value for key, value in message.items() if key not in _OWN_KEYS}
        content = message["content"]
        if form.parts:
            new["content"] = [{"type": "text", "text": content}] if content else []
        if "reasoning_content" in message:
            new["thinking"] = message["reasoning_content"]
        if calls := message.get("tool_calls"):
            new["tool_calls"] = [_call(call, form, next(numbers)) for call in calls]
            if form.null and not content:
                new["content"] = None
            unanswered = [call.get("id", "") for call in new["tool_calls"]]
            named |= {call.get("id", ""): call["function"]["name"] for call in new["tool_calls"]}
        if message["role"] == "tool":
            own = message.get("tool_call_id") or (unanswered[0] if unanswered else "")
            unanswered = [each for each in unanswered if each != own]
            if own:
                new.setdefault("tool_call_id", own)
            if own in named:
                new.setdefault("name", named[own])
        found.append(new)
    return found


_OWN_KEYS = ("train", "train_detail")


def _call(call: Mapping[str, Any], form: Form, number: int) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    if form.written:
        arguments = json.dumps(arguments, ensure_ascii=False)
    new = {**call, "function": {**function, "arguments": arguments}}
    return {"id": f"call{number:05}", **new} if form.numbered else new
