"""What is trained: the settings of every arm, each number with the file it stands in.

Looked up in transformers 5.23.0 and TRL 1.16.0 as installed (transformers' examples at commit
00aff44), axolotl 0.18.0 (067b021), LLaMA-Factory 0.9.6.dev0 (ff6d4d1) and unsloth 2026.8.19
(015bdef; its notebooks 016b8dc). Of each tool the defaults as they ship and the recipe that it
publishes as its example. transformers and TRL run as they are; the other three need a GPU and are
emulated with transformers' Trainer at exactly their settings. In all arms:

- the same tokens are scored, those of the answer or text, and rows are not cut;
- a step's loss is the mean over its scored tokens, so that rows a device times accumulated steps
  are one batch, in TRL aside;
- bfloat16 and 4-bit weights are float32, 8-bit and paged optimizers AdamW, and gradient
  checkpointing, which changes no number, is off;
- the seed is the cell's.

transformers' ``run_clm.py`` also joins texts and cuts blocks of them, which would put answers
without their questions into a block; it is left out, so that its settings are the defaults.
axolotl has no default rate, so nothing can be trained by its defaults alone. Where an example packs
rows, a step takes thousands of tokens and few documents make a step or two: the arm runs as
published and a second time without packing.
"""

from dataclasses import dataclass, replace
from typing import Literal

RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)
GRID_RATES = (2.5e-4, 5e-4, 7.5e-4, 1e-3, 1.5e-3, 2e-3)
GRID_DECAYS = (0.01, 1.0, 4.0, 10.0)
HORIZONS = (0.5, 1.0)  # epochs; beside them the weights themselves: three averages
NO_NEW_LOW = 6  # evaluations, three epochs: then the tuned baseline stops


@dataclass(frozen=True)
class Lora:
    """An adapter; ``targets`` empty: PEFT's own choice for the architecture."""

    rank: int
    alpha: int
    dropout: float = 0.0
    targets: str = "all-linear"


@dataclass(frozen=True)
class Settings:
    """One training. The defaults are those of transformers' TrainingArguments."""

    rate: float = 5e-5
    epochs: float = 3.0
    max_steps: int = -1  # instead of epochs
    batch: int = 8  # rows of a step; packs, where there are any
    accumulation: int = 1
    schedule: str = "linear"
    warmup: float = 0.0  # steps, or a share of them under 1
    cuts_warmup: bool = False  # a share to whole steps, as axolotl's core/builders/base.py does
    decay: float = 0.0
    lora: Lora | None = None
    packing: int = 0  # tokens of a pack; 0: none
    trainer: Literal["transformers", "trl"] = "transformers"
    patience: int = 0  # evaluations without a new low; 0: to the end
    horizons: tuple[float, ...] = ()  # of averages that are measured beside the weights, in epochs


@dataclass(frozen=True)
class Peer:
    """A way that others train by, and where it is written."""

    name: str
    settings: Settings
    source: str
    emulated: bool = False


DEFAULTS = Settings()
TRL = Settings(rate=2e-5, trainer="trl")
TRL_FULL = Settings(rate=2e-5, epochs=1, batch=2, accumulation=8, packing=1024, trainer="trl")
TRL_LORA = replace(TRL_FULL, rate=2e-4, lora=Lora(32, 16, 0.05, targets=""))
AXOLOTL_LORA = Settings(
    rate=2e-4,
    epochs=1,
    batch=4,
    schedule="cosine",
    warmup=0.1,
    cuts_warmup=True,
    lora=Lora(16, 32, 0.05),
    packing=2048,
)
AXOLOTL_FULL = Settings(
    rate=2e-5, epochs=1, batch=8, schedule="cosine", warmup=0.1, cuts_warmup=True, packing=8192
)
FACTORY_LORA = Settings(
    rate=1e-4, epochs=3, batch=8, schedule="cosine", warmup=0.1, lora=Lora(8, 16)
)
UNSLOTH = Settings(batch=8, warmup=0.1, decay=0.001, lora=Lora(16, 16))
UNSLOTH_EXAMPLE = Settings(
    rate=2e-4, max_steps=60, batch=8, warmup=5, decay=0.01, lora=Lora(16, 16)
)

PEERS = (
    Peer("transformers", DEFAULTS, "training_args.py, TrainingArguments"),
    Peer(
        "transformers_example",
        DEFAULTS,
        "examples/pytorch/language-modeling/README.md: run_clm.py with a batch of 8",
    ),
    Peer("trl", TRL, "trl/trainer/sft_config.py and base_config.py"),
    Peer("trl_full", TRL_FULL, "trl/scripts/sft.py, # Full training"),
    Peer("trl_lora", TRL_LORA, "trl/scripts/sft.py, # LoRA; trl/trainer/model_config.py"),
    Peer("trl_lora_unpacked", replace(TRL_LORA, packing=0), "the same without --packing"),
    Peer("axolotl_lora", AXOLOTL_LORA, "examples/llama-3/lora-1b.yml, of the README", True),
    Peer(
        "axolotl_lora_unpacked",
        replace(AXOLOTL_LORA, packing=0),
        "the same without sample_packing",
        True,
    ),
    Peer("axolotl_full", AXOLOTL_FULL, "examples/llama-3/fft-8b.yaml", True),
    Peer(
        "axolotl_full_unpacked",
        replace(AXOLOTL_FULL, packing=0),
        "the same without sample_packing",
        True,
    ),
    Peer(
        "llama_factory",
        Settings(lora=Lora(8, 16)),
        "src/llamafactory/hparams/finetuning_args.py on TrainingArguments",
        True,
    ),
    Peer("llama_factory_lora", FACTORY_LORA, "examples/train_lora/qwen3_lora_sft.yaml", True),
    Peer(
        "llama_factory_full",
        Settings(rate=1e-5, batch=2, schedule="cosine", warmup=0.1),
        "examples/train_full/qwen3_full_sft.yaml",
        True,
    ),
    Peer("unsloth", UNSLOTH, "unsloth/models/rl.py, replacements; models/llama.py", True),
    Peer(
        "unsloth_cli",
        replace(UNSLOTH_EXAMPLE, max_steps=400),
        "unsloth-cli.py, defaults of its options",
        True,
    ),
    Peer(
        "unsloth_example",
        UNSLOTH_EXAMPLE,
        "notebooks/nb/Llama3.2_(1B_and_3B)-Conversational.ipynb",
        True,
    ),
)


def honest(rate: float, lora: Lora | None = None) -> Settings:
    """The tuned baseline at one of its rates: constant after 10 steps, stopped when it rises."""
    return Settings(
        rate=rate,
        epochs=20,
        batch=8,
        schedule="constant_with_warmup",
        warmup=10,
        decay=0.01,
        lora=lora,
        patience=NO_NEW_LOW,
    )


def grid(rate: float, decay: float) -> Settings:
    """One training of the grid; its averages are read in the same run."""
    return replace(honest(rate), decay=decay, horizons=HORIZONS)
