"""A learner opens JupyterLab with one command, predicts, runs notebook 01, and sees its timeline twice."""

import io
import shutil
from collections.abc import Iterator
from functools import partial
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

pytestmark = [needs_chromium, pytest.mark.timeout(240)]

NOTEBOOK = ROOT / "notebooks/01_first_task.ipynb"
SECONDS = 60


@pytest.fixture
def address(copy: Path, environment: dict[str, str], room: Path) -> Iterator[str]:
    """Run `./learn notebooks` in a copy of the project; return the address that it prints."""
    command = f"./learn notebooks --no-browser --ServerApp.port={free_port()}"
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
    for flag in (*FLAGS, f"--user-data-dir={room / 'profile'}", "--window-size=1700,1000"):
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
    timeline = page.wait_for(".jp-OutputArea .jp-RenderedSVG img")
    wait_for("the timeline", lambda: is_drawn(timeline), SECONDS)

    wait_for("the notebook in the live view", lambda: page.live_view()[0] == NOTEBOOK.name, SECONDS)
    wait_for("a task in the live view", lambda: "succeeded" in page.live_view()[1], SECONDS)
    browser.switch_to.frame(page.wait_for(".jp-Help iframe"))
    wait_for("its chart", lambda: is_drawn(browser.find_element(By.CSS_SELECTOR, "#chart svg")), SECONDS)
    browser.switch_to.default_content()

    page.run_cells(1)
    wait_for("the end of its sandbox", lambda: page.live_view()[0] != NOTEBOOK.name, SECONDS)


def test_the_pictures_of_notebook_00_are_drawn(browser: Chrome) -> None:
    page = Page(browser)
    page.open("Start here")
    page.run_cells(len(page.all(".jp-Cell")))
    page.wait_until_idle()
    drawn = ".jp-OutputArea .jp-RenderedSVG img, .jp-OutputArea .jp-RenderedMermaid img"
    wait_for("three timelines and two diagrams", lambda: len(page.all(drawn)) == 5, SECONDS)
    wait_for("the pictures", lambda: all(is_drawn(picture) for picture in page.all(drawn)), SECONDS)
