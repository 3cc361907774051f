"""The model card of a run: a README.md in Hugging Face form, words first.

It holds no row, no text that a model wrote, and no path: what it says of the data are counts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from heldout.core.errors import UserError
from heldout.core.measurement import Interval, Measurement
from heldout.core.recipe import Recipe
from heldout.core.run import Run
from heldout.core.run_files import FoldCurve
from heldout.core.verdict import Verdicts
from heldout.report import words
from heldout.report.card_settings import settings_block
from heldout.report.redacted import without_names
from heldout.report.summary import RunSummary, summarize

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # ORG/NAME
MOST_FIGURES = 12
_COLORS = {"green": "good", "yellow": "caution", "red": "problem"}
# What the table shows, in this order: beginning of the measurement's name, words, unit.
_FIGURES = (
    ("test_nll", "Loss on unseen text", "nats/token"),
    ("out_of_fold_nll", "Loss on unseen text, out of fold", "nats/token"),
    ("test_bits_per_byte", "Bits per byte of unseen text", "bits/byte"),
    ("metric", "Task metric", ""),
    ("generalization_gap", "Loss on unseen minus trained rows", "nats/token"),
    ("recital", "Training rows recited word for word", "share"),
    ("extraction", "Training rows extracted", "share"),
    ("membership_auc_loss", "Training rows told from others by loss", "AUC"),
    ("exposure", "Exposure of planted secrets", "bits"),
    ("fragment_coverage", "Text copied from training rows", "share"),
    ("ece", "Calibration error", "share"),
    ("forgetting", "Loss on other text", "nats/token"),
    ("seq_rep_4", "Repeated 4-grams in a text", "share"),
    ("ended", "Texts that end by themselves", "share"),
)
_KINDS = {"completion": "prompts with answers", "conversation": "conversations", "text": "texts"}


def write_card(run: Run) -> None:
    """Write ``README.md`` into the run and into ``best/``, from what lies in the folder."""
    card = model_card(run)
    run.write_text("README.md", card)
    if run.best.is_dir():
        run.write_text("best/README.md", card)


@dataclass(frozen=True)
class _About:
    """What the parts of a card are written from."""

    run: Run
    summary: RunSummary
    place: str  # a folder or a Hub id to load from
    base: str  # Hub id, or ""

    @property
    def is_adapter(self) -> bool:
        return self.run.path("best/adapter_config.json").exists()

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe


def model_card(run: Run, *, place: str = "best", title: str = "", base: str = "") -> str:
    """Metadata for the Hub, what it is, the verdict, how to load it, limits, figures, settings.

    place: what the lines of code load, a folder or ORG/NAME. title: the run folder's name unless
    given. base: ORG/NAME of the base, where it was trained from a copy that lies here. Raises
    UserError for a run without its environment or data.
    """
    about = _about(run, place, base)
    parts = [
        _front_matter(card_metadata(run, base=base)),
        f"# {_line(title or run.folder.resolve().name)}",
        *_what_it_is(about),
        *_verdict(about),
        "## Use",
        _code(about),
        *_limits(about),
        *_figures(about),
        "## How it was trained",
        *_trained(about),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def card_metadata(run: Run, *, base: str = "") -> dict[str, Any]:
    """The metadata of the card; ``base_model`` is there only where it is a name on the Hub."""
    about = _about(run, "best", base)
    found: dict[str, Any] = {"library_name": "peft" if about.is_adapter else "transformers"}
    if about.base:
        found["base_model"] = about.base
        found["base_model_relation"] = "adapter" if about.is_adapter else "finetune"
    return found | {"pipeline_tag": "text-generation", "tags": ["heldout"]}


def hub_base(run: Run) -> str:
    """ORG/NAME of what was trained; empty for a folder, a package, or a model from scratch."""
    environment = run.read_json("environment.json")
    model = str(environment.get("model") or "")
    is_named = HUB_NAME.fullmatch(model) and not environment.get("from_scratch")
    return model if is_named else ""


def _about(run: Run, place: str, base: str) -> _About:
    for name in ("environment.json", "data.json"):
        if not run.path(name).is_file():
            raise UserError(f"{run.folder} is incomplete: {run.path(name)} is missing.")
    return _About(run, summarize(run), place, base or hub_base(run))


def _front_matter(metadata: dict[str, Any]) -> str:
    lines = []
    for key, value in metadata.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"- {each}" for each in value)]
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(["---", *lines, "---"])


def _what_it_is(about: _About) -> Iterator[str]:
    summary, data = about.summary, about.summary.data
    kind = "An adapter (PEFT) for" if about.is_adapter else "All weights of"
    if summary.environment.get("from_scratch"):
        what = "A causal language model, trained from random weights"
    elif about.base:
        what = f"{kind} [{about.base}](https://huggingface.co/{about.base}), fine-tuned"
    else:
        what = f"{kind} {_base_in_words(about)}, fine-tuned"
    rows = data.get("rows") or {}
    groups = (data.get("groups") or {}).get("train")
    of = _KINDS.get(str(data.get("kind")), "rows")
    trained = f"{rows.get('train', 0):,} {of}"
    if groups and groups != rows.get("train"):
        trained += f" in {groups:,} groups"
    held = []
    if rows.get("validation"):
        held.append(f"{rows['validation']:,} others chose the checkpoint")
    if summary.has_test:
        held.append(f"{rows['test']:,} more, sealed until the end, judged it")
    if summary.is_cross_validated:
        held.append("cross-validation judged it")
    said = f"; {', and '.join(held)}" if held else ""
    yield f"{what} by heldout on {trained}{said}. No row is shown here."
    if about.run.status.get("state") in ("failed", "interrupted"):
        why = without_names(str(about.run.status.get("message") or ""))
        yield (
            f"**The training did not come to its end** ({about.run.status['state']}): this is the "
            f"best checkpoint until then, and nothing was measured on sealed text. {_line(why)}"
        ).rstrip()


def _base_in_words(about: _About) -> str:
    """Of a base that is not on the Hub."""
    model = str(about.summary.environment.get("model") or "")
    if model.startswith("package:"):
        return f"the model in the Python package `{_line(model.removeprefix('package:'))}`"
    return f"`{_line(words.last_name(model))}`" if model else "a model of the author's"


def _verdict(about: _About) -> Iterator[str]:
    verdict = about.summary.verdict
    if verdict is None:
        return
    yield f"**{_line(without_names(verdict.headline))}**"
    name = f"{about.summary.unseen}_nll_best"
    best, contrast = about.summary.measured.get(name), about.summary.contrast(name, "base")
    if best is not None and contrast is not None:
        before = best.value - contrast.difference
        yield (
            f"Held-out loss {before:.3f} → {best.value:.3f} nats/token: "
            f"{words.signed(contrast.difference)} "
            f"({words.with_level(contrast.interval, sign=True)})."
        )


def _code(about: _About) -> str:
    kind = "AutoPeftModelForCausalLM" if about.is_adapter else "AutoModelForCausalLM"
    first = (
        [f"from peft import {kind}", "from transformers import AutoTokenizer, pipeline"]
        if about.is_adapter
        else [f"from transformers import {kind}, AutoTokenizer, pipeline"]
    )
    asked = '"Your prompt"'
    if about.summary.data.get("kind") == "conversation":
        asked = '[{"role": "user", "content": "Your question"}]'
    return "\n".join(
        [
            "```python",
            *first,
            "",
            f'model = {kind}.from_pretrained("{about.place}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{about.place}")',
            'write = pipeline("text-generation", model=model, tokenizer=tokenizer)',
            f'print(write({asked}, max_new_tokens=64)[0]["generated_text"])',
            "```",
        ]
    )


def _limits(about: _About) -> Iterator[str]:
    yield "## Limits"
    lines = []
    if about.summary.verdict is not None:
        lines += list(_lights(about.summary.verdict))
    lines.append(
        "Unseen rows come from the same source as the training rows: other text was not judged "
        "unless a line above says so. Intervals are for this training, not over seeds."
    )
    yield "\n".join(f"- {line}" for line in lines)


def _lights(verdict: Verdicts) -> Iterator[str]:
    """A line for each that was judged, and one for all others."""
    for name, each in verdict.verdicts.items():
        if each.color != "unknown":
            said = _line(without_names(each.sentence))
            yield f"{words.sentence_case(name)}, **{_COLORS[each.color]}**: {said}"
    others = [name for name, each in verdict.verdicts.items() if each.color == "unknown"]
    if others:
        yield f"**Not measured**, so nothing is claimed: {', '.join(others)}."


def _figures(about: _About) -> Iterator[str]:
    rows = []
    for prefix, said, unit in _FIGURES:
        best = about.summary.measured.get(f"{prefix}_best")
        if best is not None:
            rows.append(_figure(said, unit or _line(best.unit), best, about, prefix))
    if not rows:
        return
    yield "## Figures"
    head = ["| | base | this model | interval | unit |", "| --- | --- | --- | --- | --- |"]
    yield "\n".join([*head, *rows[:MOST_FIGURES]])


def _figure(said: str, unit: str, best: Measurement, about: _About, prefix: str) -> str:
    base = about.summary.measured.get(f"{prefix}_base")
    before = words.number(base.value if base else None)
    bounds: Interval | None = best.interval
    return f"| {said} | {before} | {words.number(best.value)} | {words.interval(bounds)} | {unit} |"


def _trained(about: _About) -> Iterator[str]:
    result, environment = about.summary.result, about.summary.environment
    facts = []
    epoch, last = result.get("best_epoch"), result.get("last_epoch")
    folds = about.summary.cross_validation
    if isinstance(epoch, int | float) and isinstance(last, int | float):
        facts.append(f"Kept: epoch {words.epoch(epoch)} of {words.epoch(last)} trained.")
    if isinstance(folds, FoldCurve):
        facts.append(f"The number of epochs comes from {folds.folds} folds.")
    yield " ".join(facts)
    block = settings_block(about.recipe, result)
    yield f"<details><summary>Settings</summary>\n\n```toml\n{block}```\n\n</details>"
    found = environment.get("versions")
    versions = found if isinstance(found, dict) else {}
    listed = ", ".join(f"{_line(str(key))} {_line(str(each))}" for key, each in versions.items())
    device = "".join(f"; {environment[k]}" for k in ("device", "precision") if environment.get(k))
    yield f"Versions: {listed}{_line(device)}." if listed else ""


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
