"""Folders that hold a model in a form of another tool: what they are, and the way to a model."""

from pathlib import Path

from heldout.core.errors import UserError

MLX_ADAPTER = "adapters.safetensors"


def refuse_foreign(folder: Path, name: str) -> None:
    """UserError with a sentence of its own for each kind that is known; returns for all others."""
    if (folder / MLX_ADAPTER).is_file():
        raise UserError(
            f"Model {name} is an adapter of MLX: fuse it with `mlx_lm.fuse --model BASE "
            f"--adapter-path {name} --save-path MERGED`, and give MERGED."
        )
    has_weights = any(folder.glob("*.safetensors"))
    if (folder / "adapter_config.json").is_file() and has_weights:
        raise UserError(
            f"Model {name} has the weights of a whole model and an adapter_config.json, but no "
            "adapter_model.safetensors: if the adapter is merged into it, delete "
            "adapter_config.json."
        )
    named = sorted(path.parent.name for path in folder.glob("*/adapter_config.json"))
    named = [each for each in named if not each.startswith("checkpoint-")]
    if named and not has_weights:
        raise UserError(
            f"Model {name} holds adapters by name ({', '.join(named)}): give one of them, such as "
            f"{name.rstrip('/')}/{named[0]}."
        )
    if (folder / "zero_to_fp32.py").is_file() or any(folder.glob("global_step*/*_optim_states.pt")):
        raise UserError(
            f"Model {name} is a checkpoint of DeepSpeed in shards: join them with `python "
            f"{name.rstrip('/')}/zero_to_fp32.py {name} MERGED --safe_serialization`, copy "
            "config.json and the tokenizer to MERGED, and give MERGED."
        )
    sharded = sorted({path.parent for path in folder.rglob("*.distcp")})
    if sharded:
        inside = sharded[0].relative_to(folder)
        place = name.rstrip("/") if inside == Path() else f"{name.rstrip('/')}/{inside}"
        raise UserError(
            f"Model {name} is a checkpoint of FSDP in shards: join them with `accelerate "
            f"merge-weights {place} MERGED`, copy config.json and the tokenizer to MERGED, and "
            "give MERGED."
        )
