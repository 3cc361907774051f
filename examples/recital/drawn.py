"""A report with its figures as a browser draws them: no script in it, and a thirtieth of the size.

A report carries the program that draws its figures, 5 MB of it. A copy to be kept under version
control can do without: each figure is drawn once wide and once narrow, in colors that follow the
reader's theme. What is lost is what the pointer shows over a figure; the tables have it too.

    python examples/recital/drawn.py REPORT.html COPY.html [PICTURE.png]

Needs Chromium with its driver, and selenium. The picture shows the beginning of the page.
"""

import argparse
import html
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver

from heldout.report import palette

WIDE, NARROW = 1280, 390
SCREEN = 900  # pixels of height
PATIENCE = 900  # seconds for one page, on a machine that is busy
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
STYLE = """<style>
.drawn { overflow-x: auto; }
.drawn.narrow { display: none; }
@media (max-width: 700px) {
.drawn.wide { display: none; }
.drawn.narrow { display: block; }
}
</style>
"""
DRAWING = re.compile(r'<svg class="main-svg".*?</svg>', re.DOTALL)
FIGURES = """
return Object.fromEntries([...document.querySelectorAll(".plot")].map(plot =>
  [plot.id, plot.querySelector(".svg-container").outerHTML]))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("report", type=Path)
    parser.add_argument("copy", type=Path)
    parser.add_argument("picture", type=Path, nargs="?")
    options = parser.parse_args()
    write_drawn(options.report, options.copy, options.picture)


def write_drawn(report: Path, copy: Path, picture: Path | None = None) -> None:
    """Write ``copy`` of the page at ``report``, and a picture of its first screen."""
    with browser() as driver:
        figures = {}
        for width in (WIDE, NARROW):
            show(driver, report, width, "light")
            figures[width] = driver.execute_script(FIGURES)
        text = without_scripts(report.read_text(encoding="utf-8"))
        for name in figures[WIDE]:
            both = "".join(
                f'<div class="drawn {kind}">{in_variables(figures[width][name])}</div>'
                for kind, width in (("wide", WIDE), ("narrow", NARROW))
            )
            text, num = re.subn(
                rf'(<div class="plot" id="{re.escape(name)}"[^>]*>)(</div>)',
                lambda match, both=both: match[1] + both + match[2],
                text,
            )
            assert num == 1, f"figure {name} stands {num} times in the page"
        text = slim(text.replace("</head>", STYLE + "</head>", 1))
        copy.write_text(text, encoding="utf-8")
        if picture is not None:
            show(driver, copy, WIDE, "light")
            driver.save_screenshot(str(picture))


def without_scripts(page: str) -> str:
    """The page without its programs and their data; none may run in what is left."""
    page = re.sub(r"<script\b.*?</script>\n?", "", page, flags=re.DOTALL)
    page = re.sub(r"script-src [^;]*;", "script-src 'none';", page)
    return re.sub(r"<noscript>.*?</noscript>\n?", "", page, flags=re.DOTALL)


def slim(page: str) -> str:
    """The page with only what is seen of its drawings; their styles stand in it once each."""
    classes: dict[str, str] = {}

    def class_of(style: re.Match[str]) -> str:
        return f' class="{classes.setdefault(style[1], f"s{len(classes)}")}"'

    def seen(drawing: re.Match[str]) -> str:
        svg = without_group(drawing[0], "draglayer")  # where the pointer acts
        while (shorter := re.sub(r"<g[^>]*></g>", "", svg)) != svg:
            svg = shorter
        svg = re.sub(r' (?:class|data-[\w-]+)="[^"]*"', "", svg)
        return re.sub(r' style="([^"]*)"', class_of, svg)

    page = DRAWING.sub(seen, page)
    rules = (f".drawn .{name} {{ {html.unescape(style)} }}\n" for style, name in classes.items())
    return page.replace("</head>", f"<style>\n{''.join(rules)}</style>\n</head>", 1)


def without_group(svg: str, name: str) -> str:
    """The drawing without the groups of that class and all that is in them."""
    while opening := re.search(rf'<g class="{name}\b[^>]*>', svg):
        depth = 1
        for tag in re.finditer(r"<g\b|</g>", svg[opening.end() :]):
            depth += 1 if tag[0] == "<g" else -1
            if depth == 0:
                svg = svg[: opening.start()] + svg[opening.end() + tag.end() :]
                break
    return svg


def in_variables(figure: str) -> str:
    """The drawing with the palette's colors by name, so that a dark theme changes them."""
    for token, (light, _) in palette.PAIRS.items():
        figure = figure.replace(as_drawn(light), f"var(--{token.replace('_', '-')})")
    return figure


def as_drawn(color: str) -> str:
    """``#rrggbb`` as the browser writes it."""
    if not color.startswith("#"):
        return color
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


@contextmanager
def browser():
    """Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        driver = webdriver.Chrome(options=options, service=service)
        driver.command_executor.client_config.timeout = PATIENCE
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        try:
            yield driver
        finally:
            driver.quit()


def show(driver, page: Path, width: int, theme: str) -> None:
    """Open a page as on a screen of that width whose reader prefers that theme."""
    metrics = {"width": width, "height": SCREEN, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    driver.get(page.resolve().as_uri())


if __name__ == "__main__":
    main()
