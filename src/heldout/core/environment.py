"""What a result was made with: versions and hardware, without importing what is not needed."""

import os
import platform
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from heldout.core.secrets import arguments_without_secrets

PACKAGES = (
    "heldout",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "tokenizers",
    "bitsandbytes",
)
BOUNDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions_outside() -> list[str]:
    """What is installed outside of the versions that this package declares, each in words."""
    try:
        declared = [Requirement(line) for line in metadata.requires("heldout") or []]
    except metadata.PackageNotFoundError:  # the sources alone
        return []
    found = []
    for each in declared:
        try:
            installed = metadata.version(each.name) if each.name in BOUNDED else None
        except metadata.PackageNotFoundError:
            continue
        if installed and not each.specifier.contains(installed, prereleases=True):
            bounds = ",".join(sorted(map(str, each.specifier), reverse=True))
            found.append(f"{each.name} {installed} ({bounds})")
    return found


def hardware() -> str:
    """Processor, cores and memory of this machine, in words."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    words = f"{name}, {os.cpu_count()} cores"
    memory = Path("/proc/meminfo")
    if memory.exists():
        gigabytes = int(memory.read_text().split()[1]) * 1024 / 1e9
        words += f", {gigabytes:.0f} GB"
    return words


def without_home(text: str) -> str:
    """``~`` in place of the home folder, which names a person, in what others will read."""
    home = str(Path("~").expanduser())
    return re.sub(rf"{re.escape(home)}(?=[/\s]|$)", "~", text) if len(home) > 1 else text


def environment(**details: Any) -> dict[str, Any]:
    """The content of a run's ``environment.json``."""
    given = arguments_without_secrets(sys.argv[1:])
    return {
        "versions": versions(),
        "hardware": hardware(),
        "platform": platform.platform(),
        "command": without_home(" ".join([Path(sys.argv[0]).name, *given])),
        **details,
    }
