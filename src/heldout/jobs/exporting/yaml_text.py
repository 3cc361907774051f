"""A snippet of YAML: notes above, settings below."""

from typing import Any

import yaml

from heldout.jobs.exporting.recipe_to_export import RecipeToExport
from heldout.jobs.exporting.settings import TrainerSettings, header


def yaml_text(
    source: RecipeToExport, found: TrainerSettings, trainer: str, table: dict[str, Any]
) -> str:
    written = yaml.safe_dump(table, sort_keys=False, allow_unicode=True, width=10_000)
    return "\n".join([*header(source, found, trainer), written])
