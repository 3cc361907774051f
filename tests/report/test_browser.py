"""The pages opened from disk in Chromium: two widths, light and dark, and print."""

import base64
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import made_up_check
import made_up_run
import pytest

from heldout.jobs.demo import demo
from heldout.report.check_page import write_check
from heldout.report.page import write_comparison, write_run_report

pytestmark = [pytest.mark.browser]

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WIDTHS = (360, 1280)
THEMES = ("light", "dark")
PAGES = ("run", "cross-validated", "interrupted", "hostile", "comparison", "check")

LONG = "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 1'>" + (
    "Donaudampfschifffahrtsgesellschaft" * 12
)

# Boxes of the main blocks; none may cover another one.
BOXES = """
return [...document.querySelectorAll(
  "h1, .about, .tiles, .light, .card, section > h2, section > .lead, nav ul, footer p")]
  .map(element => [element.tagName + "." + element.className,
                   element.getBoundingClientRect().toJSON()])
  .filter(([, box]) => box.width && box.height)
"""
# Of each figure: its room, what it takes of it, the points inside its frame, the colors drawn.
PLOTS = """
return [...document.querySelectorAll(".plot")].map(plot => {
  const canvas = plot.querySelector("canvas"), chart = Chart.getChart(canvas);
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const points = chart.data.datasets.flatMap((_, index) => chart.getDatasetMeta(index).data);
  const box = canvas.getBoundingClientRect();
  return { id: plot.id, width: box.width, height: box.height,
           marks: points.filter(point => chart.isPointInArea(point)).length,
           colors: new Set(new Uint32Array(pixels.buffer)).size,
           room: plot.getBoundingClientRect().width };
})
"""
HOVER = """
const chart = Chart.getChart(document.querySelector("#loss-curves canvas"));
const set = chart.data.datasets.findIndex(each => each.mark.name === "Validation");
const point = chart.getDatasetMeta(set).data[3], box = chart.canvas.getBoundingClientRect();
const at = { clientX: box.left + point.x, clientY: box.top + point.y, bubbles: true };
chart.canvas.dispatchEvent(new MouseEvent("mousemove", at));
requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](
  [chart.tooltip.opacity, chart.tooltip.title, chart.tooltip.body.flatMap(each => each.lines)])));
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Address of each page, written once."""
    folder = tmp_path_factory.mktemp("pages")
    run = made_up_run.made_up_run(folder / "factbook-smollm2")
    hostile = made_up_run.made_up_run(folder / "hostile", model=LONG)
    data = {**hostile.read_json("data.json"), "source": LONG}
    hostile.write_json("data.json", data)
    hostile.write_json("samples.json", [dict.fromkeys(made_up_run.samples()[0], LONG)])
    hostile.write_json("checks.json", [{"name": LONG, "status": "warning", "message": LONG}])
    list(hostile.open_test(LONG))
    cross_validated = made_up_run.made_up_cross_validation(folder / "letters")
    interrupted = made_up_run.made_up_interrupted(folder / "cut-short")
    written = [write_run_report(each) for each in (run, cross_validated, interrupted, hostile)]
    everything = [run, cross_validated, interrupted, hostile]
    written.append(write_comparison(everything, folder / "comparison.html"))
    written.append(write_check(made_up_check.made_up_check(folder), folder / "check.html"))
    return dict(zip(PAGES, (path.as_uri() for path in written), strict=True))


@pytest.fixture(scope="module")
def demo_page(tmp_path_factory):
    """Address of the page of a real run."""
    small = ("data.max_rows=64", "train.max_epochs=2", "control.fixed_epochs=2")
    return demo(out=tmp_path_factory.mktemp("demo") / "run", settings=small).report.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium or ChromeDriver is not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def show(browser, address: str, width: int, theme: str) -> None:
    """Open a page as on a screen of that width whose reader prefers that theme."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    prefer(browser, theme)
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(address)


def prefer(browser, theme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})


def requested(browser) -> list[str]:
    """Addresses that the page has asked for since the last look."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]


def size_of(address: str) -> int:
    return Path(unquote(urlsplit(address).path)).stat().st_size


def overlap(one: dict, other: dict) -> bool:
    """More than a pixel in common, and neither holds the other."""
    width = min(one["right"], other["right"]) - max(one["left"], other["left"])
    height = min(one["bottom"], other["bottom"]) - max(one["top"], other["top"])
    return width > 1 and height > 1 and not (inside(one, other) or inside(other, one))


def inside(one: dict, other: dict) -> bool:
    return (
        one["left"] >= other["left"] - 1
        and one["right"] <= other["right"] + 1
        and one["top"] >= other["top"] - 1
        and one["bottom"] <= other["bottom"] + 1
    )


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", [*PAGES, "demo"])
def test_page_is_whole(browser, pages, request, name, width, theme):
    address = request.getfixturevalue("demo_page") if name == "demo" else pages[name]
    assert size_of(address) <= 400_000
    show(browser, address, width, theme)

    scroll, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert inner == width
    assert scroll <= inner
    boxes = browser.execute_script(BOXES)
    assert len(boxes) >= 7
    for tag, box in boxes:
        held = tag.startswith("UL") or box["right"] <= width + 1
        assert held, f"{tag} reaches {box['right']} of {width}"
    overlapping = [
        (one, other)
        for index, (one, box) in enumerate(boxes)
        for other, second in boxes[index + 1 :]
        if overlap(box, second)
    ]
    assert not overlapping

    plots = browser.execute_script(PLOTS)
    assert plots
    for plot in plots:
        assert plot["height"] > 90, plot
        assert abs(plot["width"] - plot["room"]) <= 1, plot
        assert plot["marks"] > 0, plot
        assert plot["colors"] > 3, plot
    assert browser.execute_script("return document.documentElement.dataset.drawn") == theme

    assert browser.execute_script("return window.broken") is None
    log = [entry for entry in browser.get_log("browser") if entry["level"] != "DEBUG"]
    assert log == []
    assert [a for a in requested(browser) if not a.startswith(("file:", "data:"))] == []


def test_colors_follow_the_reader(browser, pages):
    """Text on its ground, and axis labels on theirs, change with the theme without a reload."""
    colors = """
    return [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector("h1")).color,
            Chart.getChart(document.querySelector("#loss-curves canvas"))
              .scales.x.options.ticks.color]
    """
    show(browser, pages["run"], 1280, "light")
    light = browser.execute_script(colors)
    prefer(browser, "dark")
    dark = browser.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => setTimeout(() => {"
        + colors.replace("return ", "done(").rstrip()
        + ") }, 100))"
    )
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert dark[0] == "rgb(20, 23, 26)"
    assert dark[2] == "#a3adb8"


def test_pointing_at_a_mark_tells_its_values(browser, pages):
    show(browser, pages["run"], 1280, "light")
    opacity, title, lines = browser.execute_async_script(HOVER)
    assert opacity > 0
    assert title == ["Validation"]
    assert lines == ["step 60, epoch 1.5", "2.856 [2.786, 2.931]"]


def test_without_scripts_the_tables_stand_in_for_the_figures(browser, pages):
    show(browser, pages["run"], 1280, "light")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(pages["run"])
        seen = browser.execute_cdp_cmd(
            "Runtime.evaluate", {"expression": "document.body.innerText"}
        )["result"]["value"]
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "The figures are drawn by JavaScript, which is off" in seen
    assert "Fixed epochs − base model" in seen, "only the figure and its table have this"


def test_figures_follow_the_width(browser, pages):
    show(browser, pages["run"], 1280, "light")
    metrics = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_async_script("setTimeout(arguments[0], 400)")
    for plot in browser.execute_script(PLOTS):
        assert abs(plot["width"] - plot["room"]) <= 1, plot


def test_print_is_light_and_no_figure_is_cut(browser, pages):
    """Figures are drawn anew at the width of the paper, whatever the screen was."""
    show(browser, pages["run"], 360, "dark")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    state = browser.execute_script("return document.documentElement.dataset.drawn")
    widths = {plot["id"]: plot["width"] for plot in browser.execute_script(PLOTS)}
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert state == "print"
    assert widths["loss-curves"] == 660
    assert widths["unseen-losses"] == 310
    paper = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(paper["data"]).startswith(b"%PDF-")
    assert browser.execute_script("return document.documentElement.dataset.drawn") == "dark"


def test_page_works_by_keyboard_and_speaks(browser, pages):
    """Every scrolling table can be focused and has a name; the first stop skips to the content."""
    show(browser, pages["run"], 360, "light")
    unnamed = browser.execute_script(
        "return [...document.querySelectorAll('.scroll')].filter("
        "region => region.tabIndex !== 0 || !region.getAttribute('aria-label')).length"
    )
    assert unnamed == 0
    first = browser.execute_script("return document.querySelector('a').getAttribute('href')")
    assert first == "#main"


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_no_light_stands_beside_an_empty_place(browser, pages, width):
    """Each row of the seven lights reaches from edge to edge."""
    show(browser, pages["run"], width, "light")
    rows: dict[int, list[dict]] = {}
    whole, *lights = browser.execute_script(
        "return [...document.querySelectorAll('.lights, .light')]"
        ".map(element => element.getBoundingClientRect().toJSON())"
    )
    assert len(lights) == 7
    for box in lights:
        rows.setdefault(round(box["top"]), []).append(box)
    for row in rows.values():
        assert max(box["right"] for box in row) >= whole["right"] - 1, row
