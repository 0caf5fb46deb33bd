"""A learner opens JupyterLab with one command, predicts, runs notebook 01, and sees its timeline twice."""

import io
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from settings import ROOT
from tests.browser.chromium import FLAGS, needs_chromium
from tests.newcomer import Terminal, free_port
from tests.waiting import processes_of, wait_for

pytestmark = [needs_chromium, pytest.mark.timeout(600)]

NOTEBOOK = ROOT / "notebooks/01_first_task.ipynb"
SECONDS = 60
# Beginnings of titles, and how many timelines and diagrams are shown. One is looked at in each run.
NOTEBOOKS = [
    ("Start here", 3, 2),
    pytest.param("Pass results on", 2, 8, marks=pytest.mark.slow),
    pytest.param("Join results", 1, 5, marks=pytest.mark.slow),
    pytest.param("Lose nothing", 3, 0, marks=pytest.mark.slow),
]


@pytest.fixture
def address(copy: Path, environment: dict[str, str], room: Path) -> Iterator[str]:
    """Run `./learn notebooks` in a copy of the project; return the address that it prints."""
    # Cells that are out of sight are in the page, too.
    own = Path(environment["HOME"], ".jupyter/lab/user-settings/@jupyterlab/notebook-extension")
    own.mkdir(parents=True)
    (own / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    command = f"./learn notebooks --no-browser --port={free_port()}"
    terminal = Terminal([], command, copy, environment)
    yield terminal.wait_for_output(r"http://127\.0\.0\.1:\d+/lab/workspaces/learn\?token=\w+")[0]
    terminal.interrupt()
    terminal.end()
    wait_for("the end of all processes", lambda: not processes_of(room))


@pytest.fixture
def browser(address: str, room: Path) -> Iterator[Chrome]:
    """Open the address in a browser with an empty profile."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={room / 'profile'}", "--window-size=1280,800"):
        options.add_argument(flag)
    driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(address)
        yield driver
    finally:
        driver.quit()


class Page:
    """What the learner sees and does."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that match."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str) -> WebElement:
        """Wait until an element is there, and return the last one."""
        return wait_for(selector, partial(self.all, selector), SECONDS)[-1]

    def open(self, title: str) -> None:
        """Click on a notebook in the index, wait until its kernel is ready, and click on its first cell."""
        wait_for(title, lambda: self.browser.find_elements(By.PARTIAL_LINK_TEXT, title), SECONDS)[0].click()
        self.wait_for(".jp-NotebookPanel .jp-CodeCell")
        wait_for("the kernel", self._kernel_is_connected, SECONDS)  # cells that run before are dropped
        self.wait_until_idle()
        self.wait_for(".jp-Notebook h1").click()

    def _kernel_is_connected(self) -> bool:
        ask = "fetch('/api/sessions').then(answer => answer.json()).then(arguments[0])"
        kernels = [session["kernel"] for session in self.browser.execute_async_script(ask)]
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels)

    def choose(self, *entries: str) -> None:
        """Click through a menu."""
        for entry in entries:
            shown = f"//*[contains(@class, 'lm-Menu') and normalize-space(text())='{entry}']"
            wait_for(entry, partial(self.browser.find_elements, By.XPATH, shown), SECONDS)[-1].click()

    def use(self, theme: str) -> None:
        """Choose a theme, and wait until the page has it."""
        self.choose("Settings", "Theme", theme)
        self.wait_for(f"body[data-jp-theme-name='{theme}']")

    def wait_for_pictures(self, timelines: int, diagrams: int) -> None:
        """Wait until so many pictures are drawn, and no others."""
        charts, canvases = ".jp-OutputArea [role=list]", ".jp-OutputArea .jp-RenderedMermaid img"

        def are_drawn() -> bool:
            found = [self.all(charts), self.all(canvases)]
            return [*map(len, found)] == [timelines, diagrams] and all(map(is_drawn, chain(*found)))

        wait_for(f"{timelines} timelines and {diagrams} diagrams", are_drawn, SECONDS)

    def close(self) -> None:
        """Close the notebook, end its kernel, and go back to the index."""
        self.choose("File", "Close and Shut Down Notebook…")
        self.wait_for(".jp-Dialog .jp-mod-accept").click()
        wait_for("the end of the notebook", lambda: not self.all(".jp-NotebookPanel"), SECONDS)

    def run_cells(self, number: int) -> None:
        """Press Shift+Enter so many times."""
        for _ in range(number):
            ActionChains(self.browser).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()

    def wait_until_idle(self) -> None:
        """Wait until all cells that were started have ended."""
        running = partial(self.browser.find_elements, By.XPATH, "//*[text()='[*]:']")
        wait_for("the end of the cells", lambda: not running(), SECONDS)
        self.wait_for(".jp-Notebook-ExecutionIndicator[data-status=idle]")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match, also of those that are out of sight."""
        every = "return Array.from(document.querySelectorAll(arguments[0]), element => element.textContent)"
        return list(self.browser.execute_script(every, selector))

    def live_view(self) -> tuple[str, str]:
        """Return the title of the live view, and its text."""
        self.browser.switch_to.frame(self.wait_for(".jp-Help iframe"))
        try:
            title, text = self.texts("#title, #text")
        finally:
            self.browser.switch_to.default_content()
        return title, text


def is_drawn(picture: WebElement) -> bool:
    """Tell whether a picture shows more than an empty frame: letters and bars have edges of many greys."""
    image = Image.open(io.BytesIO(picture.screenshot_as_png)).convert("RGB")
    return len(image.getcolors(maxcolors=1 << 24) or ()) > 20


def test_notebook_01_runs_in_jupyterlab_and_shows_its_timeline(browser: Chrome) -> None:
    page = Page(browser)
    page.open("Send your first task")
    cells = [cell.source for cell in nbformat.read(NOTEBOOK, nbformat.NO_CONVERT).cells]
    first = next(number for number, source in enumerate(cells, 1) if "predict(" in source)

    page.run_cells(first)
    page.wait_for(".widget-radio-box")
    [pending] = [label for label in page.all(".widget-radio-box label") if label.text == "PENDING"]
    pending.click()
    page.all(".jp-Cell")[first].click()  # the keys go to the next cell again, and not to the buttons
    page.run_cells(len(cells) - first - 1)  # the last cell would close the sandbox
    page.wait_until_idle()

    numbers = page.texts(".jp-CodeCell .jp-InputArea-prompt")
    assert numbers == [*(f"[{number}]:" for number in range(1, len(numbers))), "[ ]:"]
    assert page.all("[data-mime-type='application/vnd.jupyter.error'], [data-mime-type*=stderr]") == []
    assert "You predicted: PENDING\nWhat happened: PENDING\nRight.\n" in page.texts(".jp-OutputArea-output")
    timeline = page.wait_for(".jp-OutputArea .learn [role=list]")
    wait_for("the timeline", lambda: is_drawn(timeline), SECONDS)

    wait_for("the notebook in the live view", lambda: page.live_view()[0] == NOTEBOOK.name, SECONDS)
    wait_for("a task in the live view", lambda: "succeeded" in page.live_view()[1], SECONDS)
    browser.switch_to.frame(page.wait_for(".jp-Help iframe"))
    wait_for("its chart", lambda: is_drawn(page.wait_for("#chart [role=list]")), SECONDS)
    assert browser.execute_script(FAULTS, "body") == []
    browser.switch_to.default_content()
    page.use("JupyterLab Dark")
    browser.switch_to.frame(page.wait_for(".jp-Help iframe"))
    page.wait_for("html[data-theme=dark]")
    assert browser.execute_script(FAULTS, "body") == []
    browser.switch_to.default_content()

    page.all(".jp-Notebook .jp-CodeCell")[-1].click()
    page.run_cells(1)
    wait_for("the end of its sandbox", lambda: page.live_view()[0] != NOTEBOOK.name, SECONDS)


# Of each picture, table and text below what matches: what is wider than its place, and what is hard to read.
# The contrast is that of WCAG 2.2, which asks for 4.5 (success criterion 1.4.3).
FAULTS = """
const found = []
const light = part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
function luminance(colour) {
  const [red, green, blue] = colour.match(/[\\d.]+/g).map(part => light(part / 255))
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}
function ground(element) {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor
    if (colour !== "transparent" && !/, 0\\)$/.test(colour)) return colour
  }
  return "rgb(255, 255, 255)"
}
for (const place of document.querySelectorAll(arguments[0])) {
  const edge = place.getBoundingClientRect().right + 1
  for (const element of place.querySelectorAll("img, svg, table, .learn, .learn .row *"))
    if (element.getBoundingClientRect().right > edge) found.push(["wide", element.outerHTML.slice(0, 200)])
  for (const element of place.querySelectorAll(".learn *")) {
    const text = [...element.childNodes].filter(node => node.nodeType === 3 && node.data.trim())
    if (!text.length || element.tagName === "STYLE") continue
    const style = getComputedStyle(element)
    const lights = [style.color, ground(element)].map(luminance).sort((one, other) => other - one)
    if ((lights[0] + 0.05) / (lights[1] + 0.05) < 4.5) found.push(["pale", element.outerHTML.slice(0, 200)])
    if (parseFloat(style.fontSize) < 11) found.push(["small", element.outerHTML.slice(0, 200)])
  }
}
return found
"""


@pytest.mark.parametrize(("title", "timelines", "diagrams"), NOTEBOOKS)
def test_pictures_and_tables_fit_beside_the_live_view_and_can_be_read_in_both_themes(
    browser: Chrome, title: str, timelines: int, diagrams: int
) -> None:
    page = Page(browser)
    page.open(title)
    page.run_cells(len(page.all(".jp-Cell")) - 2)  # without the check of an exercise, and the end
    page.wait_until_idle()
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        page.use(theme)
        page.wait_for_pictures(timelines, diagrams)
        assert browser.execute_script(FAULTS, ".jp-OutputArea-output") == [], (title, theme)
    page.close()


def test_what_is_too_wide_too_pale_or_too_small_is_found(browser: Chrome) -> None:
    bad = "<div class='learn'><img style='width: 3000px'><p style='color: #999; font-size: 9px'>x</p></div>"
    browser.execute_script("document.body.innerHTML = arguments[0]", f"<div id='place'>{bad}</div>")
    assert sorted({kind for kind, _ in browser.execute_script(FAULTS, "#place")}) == ["pale", "small", "wide"]
