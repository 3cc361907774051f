"""Kinds of adapters that a recipe can name, as PEFT's LoraConfig is told of them."""

from typing import Any

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
}
"""``model.adapter`` -> settings beside rank, alpha and targets."""
