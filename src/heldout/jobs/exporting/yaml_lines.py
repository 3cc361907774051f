"""Settings as the YAML that axolotl and LLaMA-Factory read."""

from typing import Any


def yaml_lines(table: dict[str, Any]) -> list[str]:
    """Flat YAML; a list of tables is one item a block."""
    lines = []
    for key, value in table.items():
        if isinstance(value, list):
            lines.append(f"{key}:")
            for item in value:
                if isinstance(item, dict):
                    pairs = [f"{name}: {_scalar(entry)}" for name, entry in item.items()]
                    lines += [f"  - {pairs[0]}", *(f"    {pair}" for pair in pairs[1:])]
                else:
                    lines.append(f"  - {_scalar(item)}")
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.10f}".rstrip("0") + ("0" if value == int(value) else "")
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return value if value.replace("_", "").replace(".", "").isalnum() else f'"{escaped}"'
    return str(value)
