"""Formats in which prompts are commonly written: what a model may have been trained on instead."""

from dataclasses import dataclass

from heldout.core.row import Row, is_learned


@dataclass(frozen=True)
class PromptFormat:
    """``turn`` writes a message of any role but the assistant's; ``answer`` is an earlier answer.

    ``begin`` stands before the answer that is asked for.
    """

    turn: str
    answer: str
    begin: str


FORMATS = {
    "ChatML": PromptFormat(
        "<|im_start|>{role}\n{content}<|im_end|>\n",
        "<|im_start|>assistant\n{content}<|im_end|>\n",
        "<|im_start|>assistant\n",
    ),
    "Llama 3": PromptFormat(
        "<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n{content}<|eot_id|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "Llama 2": PromptFormat("[INST] {content} [/INST]", " {content} ", " "),
    "Gemma": PromptFormat(
        "<start_of_turn>{role}\n{content}<end_of_turn>\n",
        "<start_of_turn>model\n{content}<end_of_turn>\n",
        "<start_of_turn>model\n",
    ),
    "Alpaca": PromptFormat(
        "### Instruction:\n{content}\n\n", "### Response:\n{content}\n\n", "### Response:\n"
    ),
    "Vicuna": PromptFormat("USER: {content} ", "ASSISTANT: {content} ", "ASSISTANT: "),
    "question and answer": PromptFormat("Question: {content}\n", "Answer: {content}\n", "Answer:"),
    "bare text": PromptFormat("{content}\n", "{content}\n", ""),
}


def prompt_of(row: Row, chosen: PromptFormat) -> str:
    """All that comes before the last answer of a row, written in a format."""
    messages = list(row.messages)
    last = max(
        (i for i, m in enumerate(messages) if is_learned(m)),
        default=len(messages),
    )
    written = []
    for message in messages[:last]:
        role = "user" if message["role"] == "prompt" else message["role"]
        pattern = chosen.answer if role == "assistant" else chosen.turn
        written.append(pattern.replace("{role}", role).replace("{content}", message["content"]))
    return "".join(written) + chosen.begin
