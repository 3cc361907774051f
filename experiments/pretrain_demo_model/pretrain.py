"""Pretrain the embedded model: 4 Llama layers, 2.56M parameters, on the text of `corpus.py`.

Run it again after any interruption: it goes on from the last checkpoint. The rate is constant until
the last 30 % of the steps, so a stopped run may be resumed with fewer or more `--steps`.
At the end it packages the model (`package.py`). See README.md for the settings of the allocator
that make it 25 % faster.
"""

import argparse
import json
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import package
import torch
from checkpoints import last_checkpoint
from corpus import CACHE, pack, read_corpus, token_lists
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

EOS = "<|endoftext|>"
VOCABULARY = 4096
CONTEXT = 512
SEQUENCE_TOKENS = 512
BATCH_SEQUENCES = 4
MAX_EPOCHS = 12
SEED = 0
# Roles become ordinary words, so that the template needs no token the pretraining never saw.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "Answer:{% generation %} {{ message['content'] | trim }}{{ eos_token }}{% endgeneration %}\n"
    "{% elif message['role'] == 'user' %}Question: {{ message['content'] | trim }}\n"
    "{% else %}{{ message['content'] | trim }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Answer:{% endif %}"
)


def train_tokenizer(texts):
    """Byte-level BPE learned from `texts` alone; every digit is a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=EOS,
        bos_token=EOS,
        pad_token=EOS,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(eos):
    """A Llama of 2,557,632 parameters, input and output embeddings shared."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=eos,
            # 10 % faster than SDPA at this size under bf16 autocast on a CPU.
            attn_implementation="eager",
        )
    )


class Blocks(torch.utils.data.Dataset):
    """Blocks of token ids; every token is scored."""

    def __init__(self, blocks):
        self.blocks = torch.tensor(blocks, dtype=torch.int32)

    def __len__(self):
        return len(self.blocks)

    def __getitem__(self, i):
        return {"input_ids": self.blocks[i].long(), "labels": self.blocks[i].long()}


class Clock(TrainerCallback):
    """Write the time (Unix seconds) and the process into every entry of the trainer's log."""

    def on_log(self, args, state, control, **kwargs):
        state.log_history[-1] |= {"time": round(time.time(), 1), "process": os.getpid()}


def main():
    """Train for `--steps` optimizer steps of 2,048 tokens, then package unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=11000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-package", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    corpus = read_corpus()
    runs = CACHE / "checkpoints"
    tokenizer_folder = CACHE / "tokenizer"
    if tokenizer_folder.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_folder)
    else:
        tokenizer = train_tokenizer(corpus.train)
        tokenizer.save_pretrained(tokenizer_folder)
    eos = tokenizer.eos_token_id
    train_tokens = token_lists(tokenizer, corpus.train)
    tokens_per_epoch = sum(map(len, train_tokens)) + len(train_tokens)
    train = Blocks(pack(train_tokens, eos, SEQUENCE_TOKENS, MAX_EPOCHS, SEED))
    held_out = {
        "validation": Blocks(
            pack(token_lists(tokenizer, corpus.validation), eos, SEQUENCE_TOKENS)[::2]
        ),
        "later": Blocks(pack(token_lists(tokenizer, corpus.later), eos, SEQUENCE_TOKENS)[::4]),
    }
    plan = {
        "steps": arguments.steps,
        "tokens_per_step": SEQUENCE_TOKENS * BATCH_SEQUENCES,
        "training_tokens": tokens_per_epoch,
        "epochs": arguments.steps * SEQUENCE_TOKENS * BATCH_SEQUENCES / tokens_per_epoch,
        "training_bytes": sum(len(text.encode()) for text in corpus.train),
        "corpus_sha256": corpus.sha256(),
        "threads": arguments.threads,
    }
    (CACHE / "plan.json").write_text(json.dumps(plan, indent=1))
    print(plan, {name: len(part) for name, part in held_out.items()}, flush=True)
    trainer = Trainer(
        model=new_model(eos),
        args=TrainingArguments(
            output_dir=str(runs),
            max_steps=arguments.steps,
            per_device_train_batch_size=BATCH_SEQUENCES,
            per_device_eval_batch_size=BATCH_SEQUENCES,
            # `pack` has shuffled already, anew for every epoch.
            train_sampling_strategy="sequential",
            learning_rate=2.5e-3,
            lr_scheduler_type="warmup_stable_decay",
            warmup_steps=200,
            lr_scheduler_kwargs={
                "num_decay_steps": round(0.3 * arguments.steps),
                "decay_type": "linear",
            },
            optim="adamw_torch_fused",
            adam_beta2=0.95,
            weight_decay=0.1,
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=True,
            logging_steps=50,
            eval_strategy="steps",
            eval_steps=500,
            prediction_loss_only=True,
            save_steps=500,
            save_total_limit=3,
            seed=SEED,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=train,
        eval_dataset=held_out,
        processing_class=tokenizer,
        callbacks=[Clock()],
    )
    runs.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=last_checkpoint(runs))
    trainer.save_model(str(CACHE / "final"))
    trainer.state.save_to_json(str(CACHE / "final" / "trainer_state.json"))
    if not arguments.no_package:
        package.main(["--threads", str(arguments.threads)])


if __name__ == "__main__":
    main()
