#!/bin/sh
# LLaMA-Factory 0.9.5: formatting "openai" adds a system prompt, and template "empty" ends no answer.
#
# Guessed: rows of dataset_info.json with formatting "openai" (messages of role and content) are
# trained as they stand, as those with "sharegpt" and the same tags are, and a prompt with its answer
# under the template without any text ends with the end-of-text token, as under every other one.
# Seen: a conversation without a system prompt and tools is given the system prompt
# "detailed thinking off", and one with a system prompt gets those words appended; nothing is said.
# Under "empty" the answer's last token is that of its text, so a model never learns to stop.
set -eu
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
. "$place/venv/bin/activate"
pip install --quiet --no-deps llamafactory==0.9.5
pip install --quiet torch==2.13.0 transformers==5.6.0 datasets==4.0.0 peft==0.18.1 trl==0.24.0 \
    accelerate==1.11.0 omegaconf==2.3.0 pillow==12.0.0 numpy==2.3.5 av==16.0.1 fire==0.7.1
python - <<'PYTHON'
import sys
import types
from importlib.machinery import ModuleSpec

audio = types.ModuleType("torchaudio")  # has no build for this torch, and is of audio alone
audio.__spec__ = ModuleSpec("torchaudio", None)
sys.modules["torchaudio"] = audio
from types import SimpleNamespace

from llamafactory.data.converter import OpenAIDatasetConverter, SharegptDatasetConverter
from llamafactory.data.parser import DatasetAttr
from llamafactory.data.template import TEMPLATES
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

TAGS = {
    "role_tag": "role", "content_tag": "content", "user_tag": "user",
    "assistant_tag": "assistant", "system_tag": "system", "observation_tag": "tool",
}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def system_of(converter, formatting, messages):
    described = DatasetAttr("file", dataset_name="rows", formatting=formatting)
    described.join({"formatting": formatting, "columns": {"messages": "messages"}, "tags": TAGS})
    made = converter(described, SimpleNamespace(media_dir=""))({"messages": messages})
    return made["_system"]


plain = system_of(SharegptDatasetConverter, "sharegpt", TALK)
added = system_of(OpenAIDatasetConverter, "openai", TALK)
asked = [{"role": "system", "content": "Be brief."}, *TALK]
longer = system_of(OpenAIDatasetConverter, "openai", asked)
print("sharegpt:", repr(plain), "openai:", repr(added), repr(longer))
assert plain == "" and added == "detailed thinking off"
assert longer == "Be brief.\ndetailed thinking off"

vocabulary = {chr(code): code for code in range(256)} | {"</s>": 256}
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer(models.BPE(vocabulary, [])), eos_token="</s>"
)
ends = {}
for name in ("empty", "default", "qwen"):
    _, answer = TEMPLATES[name].encode_oneturn(tokenizer, TALK)
    ends[name] = "".join(tokenizer.convert_ids_to_tokens(answer))
print(ends)
assert ends["empty"] == "Hello." and ends["default"].strip().endswith("</s>")
print("LLaMA-Factory: as described")
PYTHON
