"""Rows that say which answer is good: a chosen and a rejected one, or one with a label.

Trained on like other rows they would teach the bad answers too, or the prompt alone. So they are
refused unless data.learn_chosen asks for the good answers, which are then rows like any others.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from heldout.core.errors import UserError
from heldout.data.record import Record, type_words

Preference = Literal["", "pairs", "labels"]
LABELS = ("label", "kto_tag")  # of TRL and of LLaMA-Factory
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
_ANSWERS = ("completion", "messages", "conversations", "output", "response")


def preference_of(records: Sequence[Record], mapped: Mapping[str, str]) -> Preference:
    """What the columns of a table say; its first records tell whether labels are of answers.

    A mapping by the user that names the column of a pair is no preference: it says what is learned.
    """
    columns = {column for record in records for column in record.fields}
    if {"chosen", "rejected"} <= columns and not {"chosen", "rejected"} & set(mapped.values()):
        return "pairs"
    if label_column(records) and columns & {*_ANSWERS, *mapped.values()}:
        return "labels"
    return ""


def label_column(records: Sequence[Record]) -> str:
    """The column that says of each answer whether it is good; empty where there is none."""
    for column in LABELS:
        values = [record.fields.get(column) for record in records]
        told = [value for value in values if value is not None]
        if told and all(_truth(value) is not None for value in told):
            return column
    return ""


def _truth(value: Any) -> bool | None:
    """Numbers are classes, of which no one knows which is good."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return value if isinstance(value, bool) else None


def is_bad(record: Record, column: str) -> bool:
    """Whether a row's label says that its answer is not to be learned."""
    return _truth(record.fields.get(column)) is False


def refused_pairs(name: str) -> UserError:
    """The error for a table of pairs."""
    return UserError(
        f"{name} holds pairs of a chosen and a rejected answer, which are for preference training "
        "(DPO, ORPO). To learn the chosen answers alone: --learn-chosen or --set "
        "data.learn_chosen=true. Nothing was written."
    )


def refused_label(column: str) -> str:
    """Why a row is not learned, and how to leave such rows out."""
    return (
        f'"{column}" is false: a bad answer would be learned as a good one. To learn the good '
        "answers alone: --learn-chosen or --set data.learn_chosen=true"
    )


def chosen_alone(record: Record, columns: Mapping[str, str]) -> Record:
    """The row that learns the chosen answer of a pair, without the rejected one.

    ``columns`` as the user maps them, perhaps of the prompt. Raises UserError where no prompt
    stands before the answer.
    """
    fields = {k: v for k, v in record.fields.items() if k not in ("chosen", "rejected")}
    answer = record.fields.get("chosen")
    turns = answer if isinstance(answer, list) else [answer] if isinstance(answer, dict) else None
    if turns is None and not isinstance(answer, str):
        raise UserError(
            f'{record.where}: "chosen" must be text or messages, got {type_words(answer)}. Nothing '
            "was written."
        )
    if turns is None and "conversations" not in fields and "messages" not in fields:
        return record._replace(fields=_text_row(fields, str(answer), columns, record.where))
    if turns is None:
        turns = [{"role": "assistant", "content": answer}]
    return record._replace(fields=_conversation_row(fields, turns, record.where))


def _text_row(
    fields: dict[str, Any], answer: str, columns: Mapping[str, str], where: str
) -> dict[str, Any]:
    if isinstance(fields.get(columns.get("prompt", "prompt")), str):
        fields.pop("completion", None)
        return {**fields, "completion": answer}
    if isinstance(fields.get("prompt"), list):
        turns = [*fields.pop("prompt"), {"role": "assistant", "content": answer}]
        return {**fields, "messages": turns}
    if isinstance(fields.get("instruction"), str):
        return {**fields, "output": answer}
    asked = next((name for name in ("question", "query") if isinstance(fields.get(name), str)), "")
    if asked:
        prompt = fields.pop(asked)
        return {**fields, "prompt": prompt, "completion": answer}
    raise UserError(
        f'{where}: no prompt stands beside "chosen". To learn it as a text: --set '
        "data.columns.text=chosen. Nothing was written."
    )


def _conversation_row(fields: dict[str, Any], turns: list[Any], where: str) -> dict[str, Any]:
    """Chosen turns begin with the answer, after the turns or the prompt beside it, or with all."""
    prompt = fields.pop("prompt", None)
    before = [fields.pop(column, None) for column in ("conversations", "messages")]
    if _speaker(turns[0] if turns else None) in ("assistant", "gpt", "model"):
        earlier = next((each for each in (*before, prompt) if isinstance(each, list)), None)
        if earlier is None and isinstance(prompt, str):
            earlier = [{"role": "user", "content": prompt}]
        if earlier is None:
            raise UserError(f'{where}: no prompt stands before "chosen". Nothing was written.')
        turns = [*earlier, *turns]
    return {**fields, "messages": turns}


def _speaker(turn: Any) -> str:
    return str(turn.get("role", turn.get("from", ""))).lower() if isinstance(turn, dict) else ""


def refuse_media(record: Record) -> None:
    """Raise UserError for a row with images or the like: its text alone may not make sense."""
    for column in MEDIA:
        value = record.fields.get(column)
        if value is not None and value != "" and value != []:
            raise UserError(
                f'{record.where}: "{column}" is not empty, and only text is read: leave such rows '
                "out, or the column where the text alone makes sense. Nothing was written."
            )
