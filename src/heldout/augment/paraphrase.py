"""Paraphrase: an instruction-tuned model says it in other words.

The model is asked for one of several styles, drawn for each variant, and answers greedily; its
answer is taken if it is about as long as the text (between half and twice), else the text stays. A
small model changes facts and forgets half: name key facts in ``data.key_facts``, and look at the
similarity in the report. ``model`` is a model with a chat template, by default the base model, or
any function of the request. Chinese is asked in Chinese.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from random import Random
from typing import Any

from heldout.core.augmentation import Augmentation, Supplies
from heldout.core.errors import UserError
from heldout.core.segments import HAN
from heldout.lm.accelerator import training_device

SOURCE = "rephrasing in styles, Maini et al. 2024, arXiv 2401.16380"
COST = "one generated text for each variant of a chosen row, once"

STYLES = (
    "Rewrite the following text in other words. Keep every fact, name and number.",
    "Rewrite the following text in simpler words. Keep every fact, name and number.",
    "Rewrite the following text in a more formal style. Keep every fact, name and number.",
    "Rewrite the following text with another sentence structure. Keep every fact.",
)
STYLES_CHINESE = (
    "请用不同的说法改写下面的文字，保留所有事实、名称和数字。",
    "请用更简单的话改写下面的文字，保留所有事实、名称和数字。",
    "请用更正式的风格改写下面的文字，保留所有事实、名称和数字。",
    "请换一种句式改写下面的文字，保留所有事实。",
)


def request(text: str, draw: Random) -> str:
    """What the model is asked, in the language of ``text``."""
    in_chinese = 2 * len(HAN.findall(text)) > len("".join(text.split()))
    style = draw.choice(STYLES_CHINESE if in_chinese else STYLES)
    return f"{style}\n\n{text.strip()}"


def accepted(text: str, answer: str) -> str:
    """The answer between the blanks around ``text``, or ``text`` where it cannot be one."""
    answer, inner = answer.strip().strip('"“”').strip(), text.strip()
    if not 0.5 <= len(answer) / max(1, len(inner)) <= 2:
        return text
    start = len(text) - len(text.lstrip())
    return text[:start] + answer + text[start + len(inner) :]


@lru_cache(maxsize=1)
def _loaded(name: str) -> tuple[Any, Any]:

    from heldout.lm.load import load_model

    loaded = load_model(name, device=training_device())
    return loaded.model, loaded.tokenizer


@dataclass(frozen=True)
class Paraphrase(Augmentation):
    """The chosen rows are written anew by ``model``."""

    WHOLE = True
    SLOW = True

    model: Any = ""  # a chat model, a function of a text, or empty: the base model
    max_new_tokens: int = 256
    variants: int = field(default=1, kw_only=True)
    _ask: list[Callable[[list[str]], list[str]]] = field(
        default_factory=list, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("max_new_tokens", self.max_new_tokens >= 1, "1 or more")

    def prepare(self, supplies: Supplies) -> None:
        if callable(self.model):
            function = self.model
            self._ask[:] = [lambda prompts: [function(prompt) for prompt in prompts]]
            return
        model, tokenizer = _loaded(self.model) if self.model else supplies.base()
        if not tokenizer.chat_template:
            raise UserError(
                f"Paraphrase(model={self.model!r}) has no chat template and would not follow a "
                "request: name an instruction-tuned model."
            )
        self._ask[:] = [lambda prompts: self._generate(model, tokenizer, prompts)]

    def _generate(self, model: Any, tokenizer: Any, prompts: list[str]) -> list[str]:
        from heldout.lm.generate import continuations

        ids = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
            )["input_ids"]
            for prompt in prompts
        ]
        return continuations(model, tokenizer, ids, self.max_new_tokens)

    def texts(self, contents: Sequence[str], draws: Sequence[Random]) -> list[str]:
        prompts = [request(text, draw) for text, draw in zip(contents, draws, strict=True)]
        answers = self._ask[0](prompts)
        return [accepted(text, answer) for text, answer in zip(contents, answers, strict=True)]
