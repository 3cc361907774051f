#!/bin/sh
# TRL 1.16.0: assistant_only_loss does not only mark the answers of Qwen3, Qwen3.5 and Qwen3.6.
#
# For these models SFTTrainer exchanges the chat template for a training template. Guessed: it
# renders the same text and adds the marks of what is scored. Seen, for a conversation of two turns
# without reasoning: an empty block of reasoning is put before every earlier answer, where the
# model's own template has none, so all later answers are trained behind text that no inference
# shows; and the empty block is scored, so a thinking model that is fine-tuned on plain answers
# learns not to think. Qwen2.5's and Llama 3's training templates render what the originals do. Of
# DeepSeek V3 and GPT-OSS the header that the prompt of generation already holds is scored, too.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
. "$place/venv/bin/activate"
pip install --quiet torch==2.13.0 trl==1.16.0 transformers==5.23.0 jinja2==3.1.6
python - <<'PYTHON'
from pathlib import Path

import trl
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from trl.chat_template_utils import get_training_chat_template

FOLDER = Path(trl.__file__).parent / "chat_templates"
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "More?"},
    {"role": "assistant", "content": "Yes."},
]
EMPTY = "<think>\n\n</think>\n\n"


def rendered(name):
    """The conversation by the model's template, by TRL's, and what that one scores."""
    vocabulary = {chr(code): code for code in range(256)} | {"<unk>": 256}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>")),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>",
    )
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    original = tokenizer.apply_chat_template(TALK, tokenize=False)
    template = get_training_chat_template(tokenizer)
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, spans = render_jinja_template(
        conversations=[TALK], chat_template=template, return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )
    return original, texts[0], [texts[0][start:end] for start, end in spans[0]]


for name in ("qwen3", "qwen3_5_think", "qwen3_6"):
    original, training, scored = rendered(name)
    print(name, scored)
    assert original.count(EMPTY) == 1 and training.count(EMPTY) == 2
    assert [text.startswith(EMPTY) for text in scored] == [True, True]
for name in ("qwen2_5", "llama3"):
    original, training, scored = rendered(name)
    print(name, scored)
    assert original == training and EMPTY not in training
for name, header in (("deepseekv3", "<｜Assistant｜>"), ("gptoss", "<|start|>assistant")):
    _, _, scored = rendered(name)
    print(name, scored)
    assert all(text.startswith(header) for text in scored)
print(f"TRL {trl.__version__}: as described")
PYTHON
