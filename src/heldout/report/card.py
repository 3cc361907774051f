"""The model card of a run: a README.md in Hugging Face form."""

from heldout.core.errors import UserError
from heldout.core.measurement import Interval
from heldout.core.run import Run
from heldout.report.words import last_name


def write_card(run: Run) -> None:
    """Write ``README.md`` into the run and into ``best/``, from what lies in the folder."""
    card = model_card(run)
    run.write_text("README.md", card)
    if run.best.is_dir():
        run.write_text("best/README.md", card)


def model_card(run: Run) -> str:
    """Metadata for the Hub, the verdict, the figures, and how to load the model.

    Of a model and rows that lie here their names alone: the rest of a path is nobody's business.
    """
    try:
        environment = run.read_json("environment.json")
        data = run.read_json("data.json")
    except FileNotFoundError as error:
        raise UserError(f"{run.folder} is incomplete: {error.filename} is missing.") from None
    recipe = run.recipe
    base, source = last_name(environment["model"]), last_name(data["source"])
    is_adapter = run.path("best/adapter_config.json").exists()
    lines = [
        "---",
        f"library_name: {'peft' if is_adapter else 'transformers'}",
        f"base_model: {_yaml(base)}",
        "pipeline_tag: text-generation",
        "tags: [heldout]",
        "---",
        "",
        f"# {_line(run.folder.name)}",
        "",
    ]
    if run.path("verdict.json").exists():
        lines += [_line(run.read_json("verdict.json")["headline"]), ""]
    if run.status.get("state") in ("failed", "interrupted"):
        message = str(run.status.get("message") or "")
        lines += [
            f"**The training did not come to its end** ({run.status['state']}): {_line(message)}",
            "",
        ]
    lines += [
        f"Trained by heldout {environment['versions'].get('heldout', '')} from `{_line(base)}` on "
        f"`{_line(source)}`: "
        + ", ".join(f"{count:,} {part} rows" for part, count in data["rows"].items())
        + f". Recipe `{recipe.name}` ({recipe.model.method}).",
        "",
    ]
    if run.path("measurements.json").exists():
        lines += [
            "| measured | value | 95 % interval | unit |",
            "| --- | --- | --- | --- |",
        ]
        for measured in run.read_json("measurements.json")["measurements"]:
            if measured["status"] == "measured":
                interval = measured["interval"]
                words = Interval.from_json(interval).words() if interval else ""
                lines.append(
                    f"| {measured['name']} | {measured['value']:.4f} | {words} "
                    f"| {_line(measured['unit'])} |"
                )
        lines.append("")
    lines += ["## Use", "", "```python"]
    if is_adapter:
        lines += [
            "from peft import AutoPeftModelForCausalLM",
            "from transformers import AutoTokenizer",
            "",
            'model = AutoPeftModelForCausalLM.from_pretrained("best")',
        ]
    else:
        lines += [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'model = AutoModelForCausalLM.from_pretrained("best")',
        ]
    lines += ['tokenizer = AutoTokenizer.from_pretrained("best")', "```", ""]
    last = ", `last/` the last one" if run.last.is_dir() else ""
    lines += [
        f"`best/` is the checkpoint with the lowest held-out loss{last}. "
        "`report.html` shows how they were told apart.",
        "",
    ]
    return "\n".join(lines)


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")


def _yaml(text: str) -> str:
    return '"' + " ".join(text.split()).replace("\\", "\\\\").replace('"', '\\"') + '"'
