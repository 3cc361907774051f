"""Write the generated pages: catalog, recipe keys, and what holds for each architecture."""

import ast
import inspect
import json
from pathlib import Path

import heldout.core.recipe as recipe_module
import heldout.core.regularizer as contract
from heldout.core.discovery import build, entries_of, list_entries
from heldout.core.public_names import EXPERIMENTAL, HOMES, function_homes, homes
from heldout.core.recipe import Recipe
from heldout.core.recipe_keys import recipe_keys
from heldout.core.regularizer import overrides_hook

HOOKS = (
    "prepare",
    "attached",
    "parameter_options",
    "edit_batch",
    "before_step",
    "around_gradient",
    "token_loss",
    "extra_loss",
    "after_step",
    "evaluation_weights",
    "decide",
    "finish",
)
LEVELS = ("LOSS", "WEIGHTS", "PENALTY", "ASCENT", "NOISE", "MASK")  # from the inside
FOLDER = Path(__file__).parent / "generated"


def catalog() -> str:
    lines = ["# Catalog", "", "What `heldout list` shows; a card for each follows.", ""]
    lines += ["| kind | name | what it does | cost | source |", "| --- | --- | --- | --- | --- |"]
    for entry in list_entries():
        lines.append(
            f"| {entry.kind} | `{entry.name}` | {entry.summary} | {entry.cost} | {entry.source} |"
        )
    for entry in list_entries():
        if entry.module:
            tree = ast.parse(_path(entry).read_text(encoding="utf-8"))
            lines += ["", f"## {entry.name}", "", ast.get_docstring(tree) or "", ""]
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    lines += [f"**`{node.name}`**: {ast.get_docstring(node) or ''}", ""]
            lines += [f"Source: {entry.source}. Cost: {entry.cost}."]
    return "\n".join(lines) + "\n"


def regularizers() -> dict[str, str]:
    """Tables over all regularizers, read from what each of them overrides and declares."""
    found = [(entry, build("regularizer", entry.name, {})) for entry in entries_of("regularizer")]
    return {
        "_where.md": _where(found),
        "_costs.md": _costs(found),
        "_together.md": _together(found),
    }


def _where(found) -> str:
    lines = [
        "| regularizer | what it does | `heldout fit` | `attach`, `Steps` | hooks | functions |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for entry, regularizer in found:
        used = [name for name in HOOKS if overrides_hook(regularizer, name)]
        measured = {"decide", "finish"} & set(used)
        cells = (
            f"[`{entry.class_name}`](generated/catalog.md#{entry.name})",
            entry.summary.partition(": ")[2].removesuffix(".") or entry.summary.removesuffix("."),
            "yes",
            "no: needs held-out losses" if measured else "yes",
            ", ".join(f"`{name}`" for name in used),
            ", ".join(f"`{name}`" for name in _functions(entry)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _costs(found) -> str:
    """The figures of each with its defaults; ``heldout fit`` says them for what is asked for."""
    lines = [
        "| regularizer | forwards | backwards | weights kept | in words |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry, regularizer in found:
        cost = regularizer.cost
        kept = [
            f"{copies:g} of the {which}"
            for copies, which in (
                (cost.parameters + cost.averages, "trained"),
                (cost.base, "whole model"),
            )
            if copies
        ]
        cells = (
            f"`{entry.class_name}`",
            f"{cost.windows * (1 + cost.forwards)}",
            f"{cost.windows * (1 + cost.backwards)}",
            ", ".join(kept) or "none",
            entry.cost,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _together(found) -> str:
    lines = ["| around the gradient, from the inside | regularizers |", "| --- | --- |"]
    for level in LEVELS:
        names = [
            f"`{entry.class_name}`"
            for entry, regularizer in found
            if overrides_hook(regularizer, "around_gradient")
            and getattr(contract, level) == regularizer.AROUND
        ]
        if names:
            lines.append(f"| `{level}` | {', '.join(names)} |")
    lines += ["", "| not together | why, and what instead |", "| --- | --- |"]
    told: set[tuple[frozenset[str], str]] = set()
    for entry, regularizer in found:
        for other, reason in regularizer.CONFLICTS.items():
            if (key := (frozenset((entry.class_name, other)), reason)) not in told:
                told.add(key)
                lines.append(f"| `{entry.class_name}`, `{other}` | {reason} |")
    return "\n".join(lines) + "\n"


def _functions(entry) -> list[str]:
    return [
        node.name
        for node in ast.parse(_path(entry).read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")
    ]


def _path(entry) -> Path:
    root = Path(recipe_module.__file__).parents[1]
    return (root / Path(*entry.module.split(".")[1:])).with_suffix(".py")


def architectures() -> str:
    """The table of the newest record of ``benchmarks/architectures.py``, with its refusals."""
    (path,) = (FOLDER.parents[1] / "benchmarks" / "results").glob("architectures_*.json")
    table = json.loads(path.read_text(encoding="utf-8"))["table"]
    lines = [f"| architecture | {' | '.join(VERDICTS.values())} |"]
    lines += ["| --- " * (len(VERDICTS) + 1) + "|"]
    notes: dict[str, int] = {}
    for row in table:
        if "not_built" in row:
            words = [f"not tried: {row['not_built']}", *[""] * (len(VERDICTS) - 1)]
        else:
            words = [_verdict(row[name], notes) for name in VERDICTS]
        lines.append(f"| `{row['architecture']}` | {' | '.join(words)} |")
    lines += ["", *(f"{number}. {reason}" for reason, number in notes.items())]
    return "\n".join(lines) + "\n"


VERDICTS = {
    "loss_batched": "loss",
    "gradient_trainer": "gradient",
    "dropout_hidden": "hidden dropout",
    "dropout_attention": "attention dropout",
    "dropout_heads": "heads",
    "layer_drop": "LayerDrop",
    "decay": "decay",
    "generation": "text",
    "lora": "LoRA",
}


def _verdict(verdict: str, notes: dict[str, int]) -> str:
    if verdict in ("right", "effective"):
        return "yes"
    reason = verdict.removeprefix("refused: ")
    number = notes.setdefault(reason, len(notes) + 1)
    return f"no [{number}]"


def keys() -> str:
    lines = [
        "# Recipe keys",
        "",
        "Set any of them with `--set section.key=value`, or in a .toml file given by `--recipe`.",
        "`heldout list keys` prints them.",
        "",
    ]
    for section, known in recipe_keys().items():
        kind = type(getattr(Recipe(), section))
        lines += [f"## {section}", "", inspect.getdoc(kind) or "", ""]
        lines += ["| key | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{key.name}` | `{key.default!r}` | {key.meaning} |" for key in known]
        lines.append("")
    lines += [
        "## regularizers",
        "",
        "`regularizers.NAME.PARAMETER=value` sets a parameter of a regularizer of the",
        "[catalog](catalog.md); `regularizers.NAME=true` adds it with its defaults,",
        "`regularizers.NAME=false` takes it out.",
    ]
    lines += [
        "",
        "## augment",
        "",
        "`augment.NAME.PARAMETER=value`, in the same way, for an",
        "[augmentation](../augmentation.md).",
        "They work in the order in which they stand.",
    ]
    return "\n".join(lines) + "\n"


# Qwen2.5, whose sizes are far apart: width, layers, heads, of them for keys, feed-forward,
# vocabulary, whether one matrix is both ends.
SIZES = {
    "0.5B": (896, 24, 14, 2, 4864, 151936, True),
    "1.5B": (1536, 28, 12, 2, 8960, 151936, True),
    "3B": (2048, 36, 16, 2, 11008, 151936, True),
    "7B": (3584, 28, 28, 4, 18944, 152064, False),
    "14B": (5120, 48, 40, 8, 13824, 152064, False),
    "32B": (5120, 64, 40, 8, 27648, 152064, False),
    "72B": (8192, 80, 64, 8, 29568, 152064, False),
}
MEMORY_GB = (8, 12, 16, 24, 48, 80)


def what_fits() -> str:
    """By the estimate of ``heldout fit``: the most exact weights that fit into a device.

    A twentieth of its memory is left to others.
    """
    lines = [
        "| model | float32 | 8bit | 4bit | " + " | ".join(f"in {gb} GB" for gb in MEMORY_GB) + " |",
        "| --- " * (4 + len(MEMORY_GB)) + "|",
    ]
    for name, size in SIZES.items():
        needed = {held: _needed_gb(size, held) for held in ("", "8bit", "4bit")}
        cells = [f"{gb:.1f} GB" for gb in needed.values()]
        for gb in MEMORY_GB:
            held = next((held for held, least in needed.items() if least <= 0.95 * gb), None)
            cells.append("no" if held is None else held or "float32")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _needed_gb(size, held) -> float:
    """Of a process that trains adapters of rank 8 on rows of 512 tokens, one at a time."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from heldout.jobs.kit.places import PROCESS_BYTES
    from heldout.lm.quantized import Quantization
    from heldout.training.preflight import memory_counted

    width, layers, heads, key_heads, feed_forward, vocabulary, tied = size
    config = Qwen2Config(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_heads,
        intermediate_size=feed_forward,
        vocab_size=vocabulary,
        tie_word_embeddings=tied,
    )
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    recipe = Recipe().replace(
        model={"load_in": held, "gradient_checkpointing": True},
        train={"batch_size": 1, "micro_batch_size": 1},
    )
    if held:
        weights = Quantization(held).bytes_of(model, torch.float32)
    else:
        weights = 4 * model.num_parameters()
    maps = [each.weight.shape for each in model.model.modules() if type(each) is torch.nn.Linear]
    trained = sum(recipe.model.lora_rank * sum(shape) for shape in maps)
    beside = memory_counted(config, trained, 512, recipe, vocabulary)
    return (PROCESS_BYTES + weights + 4 * trained + beside) / 1e9


def reference() -> str:
    """All public names with their docstrings; mkdocstrings fills the lines with colons."""
    tried = {name for names in EXPERIMENTAL.values() for name in names}
    firm = {name: home for name, home in HOMES.items() if name not in tried}
    parts = {
        "Functions": [name for name in firm if name[0].islower()],
        "Types": [name for name in firm if name[0].isupper()],
        "Regularizers and augmentations": [name for name in homes() if name not in HOMES],
        "Experimental": list(tried),
    }
    lines = [
        "# API reference",
        "",
        "All names of `heldout`. What is stable and what is experimental means is said under",
        "[As a library](../library.md#what-is-promised).",
    ]
    for title, names in parts.items():
        lines += ["", f"## {title}"]
        for name in sorted(names, key=str.lower):
            lines += ["", f"::: heldout.{name}"]
    lines += ["", "## heldout.functions", "", "Experimental: the mathematics as plain functions."]
    for name in sorted(function_homes(), key=str.lower):
        lines += ["", f"::: heldout.functions.{name}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "catalog.md").write_text(catalog(), encoding="utf-8")
    (FOLDER / "recipe.md").write_text(keys(), encoding="utf-8")
    (FOLDER / "reference.md").write_text(reference(), encoding="utf-8")
    (FOLDER / "_architectures.md").write_text(architectures(), encoding="utf-8")
    (FOLDER / "_what_fits.md").write_text(what_fits(), encoding="utf-8")
    for name, table in regularizers().items():
        (FOLDER / name).write_text(table, encoding="utf-8")
