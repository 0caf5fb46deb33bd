"""The page of the web front in a real browser: tokens arrive live, and no fault loses what a user sees."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from api.users import COOKIE
from lab.sandbox import Sandbox
from services.task_runs import LOST
from tests.browser.chromium import FLAGS, needs_chromium
from tests.browser.test_jupyterlab import FAULTS
from tests.integration.test_web_front import let_the_lease_pass
from tests.waiting import wait_for
from tests.web_front import Api, serving, slow_task
from tests.workers import start

pytestmark = [needs_chromium, pytest.mark.usefixtures("data"), pytest.mark.timeout(240)]

SIZES = [(360, 740), (768, 1024), (1280, 800), (1366, 768), (1920, 1080)]


class Page:
    """What a user sees and does."""

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser = browser
        browser.get(address)
        wait_for("the cookie", lambda: browser.get_cookie(COOKIE))
        self.cookie: str = browser.get_cookie(COOKIE)["value"]  # type: ignore[index]

    def all(self, selector: str) -> list[WebElement]:
        """Return all elements that match."""
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of the first element that matches, also of one that is out of sight, or nothing."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.browser.execute_script(script, selector))

    def wait_for(self, selector: str, text: str, seconds: float = 20) -> None:
        """Wait until the first element that matches has this text in it."""
        wait_for(f"{selector} says {text}", lambda: text in self.text(selector), seconds)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        ActionChains(self.browser).send_keys(*keys).perform()


@pytest.fixture
def api(sandbox: Sandbox) -> Iterator[Api]:
    with serving(dispatcher__SWEEP_SECONDS=0.2) as api:
        yield api


@pytest.fixture
def page(api: Api, room: Path) -> Iterator[Page]:
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={room / 'profile'}", "--window-size=1280,800"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = Chrome(options, ChromeService(shutil.which("chromedriver")))
    try:
        yield Page(browser, api.address)
    finally:
        browser.quit()


def test_a_task_is_submitted_by_keyboard_and_its_text_arrives(sandbox: Sandbox, page: Page) -> None:
    sandbox.start_worker(["ai"])
    page.press(Keys.TAB, Keys.TAB)  # over the link that skips the form
    page.press("A short <b>story</b>", Keys.TAB, Keys.TAB, Keys.ENTER)
    page.wait_for(".task .word", "completed")
    assert page.text(".task h3") == "A short <b>story</b>"  # text stays text
    assert page.text(".task .text")
    assert "completed" in page.text("[aria-live=polite]")
    assert page.text("#form-error") == ""
    assert page.browser.get_log("browser") == []  # also what the Content-Security-Policy would refuse


def test_an_empty_prompt_is_refused_where_it_is_written(page: Page) -> None:
    page.all("#text-form button")[0].click()
    page.wait_for("#form-error", "Write a prompt")
    assert page.browser.switch_to.active_element.get_attribute("id") == "prompt"


def test_tokens_arrive_live_and_survive_a_reload_a_cut_connection_and_a_killed_worker(
    sandbox: Sandbox, api: Api, page: Page, tmp_path: Path
) -> None:
    worker = start(sandbox)
    task_id = slow_task(page.cookie, tmp_path)
    card = f"#task-{task_id}"
    page.wait_for(f"{card} .word", "runs")
    for number in (1, 2):
        (tmp_path / str(number)).touch()
        page.wait_for(f"{card} .text", f"word-{number} ")
    page.browser.refresh()
    page.wait_for(f"{card} .text", "word-1 word-2 ")
    api.end()
    page.wait_for("#connection", "again")
    (tmp_path / "3").touch()
    with serving(port=int(api.address.rpartition(":")[2]), dispatcher__SWEEP_SECONDS=0.2):
        (tmp_path / "4").touch()
        page.wait_for(f"{card} .text", "word-4 ")
        assert page.text(f"{card} .text") == "word-1 word-2 word-3 word-4 "
        wait_for("the message is gone", lambda: page.text("#connection") == "")
        worker.kill()
        let_the_lease_pass(task_id)
        page.wait_for(f"{card} .word", "failed")
        assert page.text(f"{card} .error") == LOST
        assert page.all(f"{card} .replay")[0].is_displayed()
        (tmp_path / "end").touch()
        page.all(f"{card} .replay")[0].click()
        page.wait_for(f"{card} .word", "waits")
        start(sandbox)
        page.wait_for(f"{card} .word", "completed")
        assert "run 2 times" in page.text(f"{card} .about")


def test_a_task_that_waits_is_cancelled(api: Api, page: Page, tmp_path: Path) -> None:
    slow_task(page.cookie, tmp_path)
    page.wait_for(".task .word", "waits")
    page.all(".task .cancel")[0].click()
    page.wait_for(".task .word", "cancelled")
    assert page.browser.switch_to.active_element.text == "Run again"  # the focus is not lost


def test_the_page_fits_every_screen_and_can_be_read_in_both_themes(
    api: Api, page: Page, tmp_path: Path
) -> None:
    prompt = page.all("#prompt")[0]
    for text in ("x" * 300, "A long prompt, " * 30):
        prompt.send_keys(text)
        page.all("#text-form button")[0].click()
        page.wait_for(".task h3", text[:9])
    page.all("#text-form button")[0].click()
    page.wait_for("#form-error", "Write a prompt")
    every = FAULTS.replace(".learn, .learn .row *", "*").replace(".learn *", "*")
    for theme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": theme}]
        page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for width, height in SIZES:
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
            assert page.browser.execute_script(every, "body") == [], (theme, width)
            assert page.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    controls = [one for one in page.all("button, input, textarea, select, a") if one.is_displayed()]
    assert len(controls) > 4
    assert all(one.accessible_name for one in controls)
