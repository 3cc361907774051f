"""The colors of the page and of its figures, in one place, for light and for dark.

Figures name tokens; the page's script draws them in the colors of the reader's theme. Hues are told
apart by readers with red-green blindness too, and no meaning rests on a color alone.
"""

# token: (light, dark)
PAIRS: dict[str, tuple[str, str]] = {
    "ink": ("#1c2127", "#e8eaed"),
    "muted": ("#59626d", "#a3adb8"),
    "faint": ("#e9ebee", "#2b3138"),
    "line": ("#d3d8dd", "#3c444d"),
    "page": ("#f7f7f5", "#14171a"),
    "surface": ("#ffffff", "#1c2024"),
    "train": ("#2563a8", "#77b0ee"),
    "heldout": ("#b4490a", "#f2985a"),
    "heldout_band": ("rgba(180,73,10,0.16)", "rgba(242,152,90,0.20)"),
    "train_band": ("rgba(37,99,168,0.14)", "rgba(119,176,238,0.18)"),
    "heldout_dots": ("rgba(180,73,10,0.60)", "rgba(242,152,90,0.65)"),
    "train_dots": ("rgba(37,99,168,0.45)", "rgba(119,176,238,0.50)"),
    "base": ("#66707b", "#98a2ad"),
    "kept": ("#0b7261", "#4cc9b0"),
    "zone": ("rgba(109,118,129,0.13)", "rgba(152,162,173,0.16)"),
    "green": ("#16703f", "#5fcb8d"),
    "green_tint": ("#eaf5ee", "#16281d"),
    "yellow": ("#825500", "#e3b341"),
    "yellow_tint": ("#fbf3df", "#2b2412"),
    "red": ("#b42318", "#ff8a80"),
    "red_tint": ("#fdeeec", "#33191a"),
    "unknown": ("#59626e", "#a3adb9"),
    "unknown_tint": ("#f1f2f4", "#22272c"),
    "run1": ("#0a7160", "#4bc8af"),
    "run2": ("#6f42c1", "#b794f6"),
    "run3": ("#b5480b", "#f3975b"),
    "run4": ("#2464a9", "#76afef"),
    "run5": ("#a62162", "#f48fb9"),
    "run6": ("#6a6203", "#cfc53c"),
}

NUM_RUN_COLORS = 6
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def colors(theme: int) -> dict[str, str]:
    """Token to color; ``theme`` 0 is light, 1 dark."""
    return {token: pair[theme] for token, pair in PAIRS.items()}


def run_style(index: int) -> tuple[str, str]:
    """Token and dash of the run at ``index``; the two together differ for 30 runs."""
    return f"run{index % NUM_RUN_COLORS + 1}", DASHES[index // NUM_RUN_COLORS % len(DASHES)]


def css_variables(theme: int) -> str:
    """Custom properties for ``:root``; ``theme`` 0 is light, 1 dark."""
    named = colors(theme).items()
    return " ".join(f"--{token.replace('_', '-')}: {color};" for token, color in named)
