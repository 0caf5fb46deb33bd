"""Draw docs/notebook.png: a notebook beside the live view, as a learner sees them, in a real run.

python docs/make_notebook_picture.py

It needs Chromium and its driver, and the packages of the tests.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from settings import ROOT
from tests.browser.chromium import FLAGS
from tests.browser.test_jupyterlab import Page
from tests.newcomer import free_port

PICTURE = ROOT / "docs" / "notebook.png"
CELLS = 26  # of notebook 10: until the killed worker's task has come again
WIDTH, HEIGHT = 1280, 760


def photograph(address: str, room: Path) -> bytes:
    """Run the cells in a browser, and return a picture of its window."""
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (*FLAGS, f"--user-data-dir={room / 'profile'}", f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(flag)
    with Chrome(options, ChromeService(shutil.which("chromedriver"))) as browser:
        browser.get(address)
        page = Page(browser)
        page.open("Lose nothing")
        page.run_cells(CELLS)
        page.wait_until_idle()
        last = page.all(".jp-OutputArea [role=list]")[-1]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", last)
        time.sleep(2)  # the live view draws once a second
        return browser.get_screenshot_as_png()


def main() -> None:
    """Write the picture."""
    with tempfile.TemporaryDirectory(prefix="learn-") as name:
        room = Path(name)
        own = {
            "HOME": name,
            "SANDBOX_DIR": f"{name}/s",
            "STATE_DIR": f"{name}/st",
            "WORKSPACE_DIR": f"{name}/w",
        }
        command = [ROOT / "learn", "notebooks", "--no-browser", f"--port={free_port()}"]
        with subprocess.Popen(command, env=os.environ | own, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr
            found = next(filter(None, (re.search(r"http://127\S+", line) for line in server.stderr)))
            try:
                picture = photograph(found[0], room)
            finally:
                server.send_signal(signal.SIGINT)
    colours = Image.open(io.BytesIO(picture)).convert("RGB").quantize(128)
    colours.save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
