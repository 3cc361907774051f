"""Held-out loss of a checkpoint, by plain transformers and peft alone: FOLDER ROWS.jsonl."""

import json
import sys

import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
nats, tokens = 0.0, 0
for line in open(sys.argv[2], encoding="utf-8"):  # noqa: SIM115, PTH123
    row = json.loads(line)
    prompt, completion = row["prompt"], row["completion"]
    answer = [*tokenizer(completion, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    ids = torch.tensor([tokenizer(prompt).input_ids + answer])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[0, -len(answer) - 1 : -1]
    nats += torch.nn.functional.cross_entropy(
        logits, ids[0, -len(answer) :], reduction="sum"
    ).item()
    tokens += len(answer)
print(nats / tokens)
