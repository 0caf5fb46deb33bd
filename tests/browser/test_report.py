"""The sales report in a real browser: the charts can be seen, and the page loads nothing from elsewhere."""

import json
import os
import re
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from services.database import engine, migrate
from services.order_import import import_csv
from services.reports import generate_report
from settings import ROOT, settings
from tests.browser.chromium import FLAGS, needs_chromium

pytestmark = needs_chromium

BAR_COLOUR = (0x2F, 0x6F, 0x4F)


@dataclass(frozen=True)
class Visit:
    """What a browser made of a page: its elements as text, its picture, and the addresses it asked for."""

    dom: str
    picture: Path
    requests: list[str]


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a report, and move its page alone into an empty folder: it must need no other file."""
    for name in ("data_dir", "state_dir"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(settings, name, tmp_path / name)
    monkeypatch.setattr(settings, "database_url", None)
    shutil.copy(ROOT / "data/orders.csv", settings.data_dir)
    migrate()
    import_csv("orders.csv")
    written = settings.data_dir / generate_report("2026")["html"]
    engine().dispose()
    (tmp_path / "alone").mkdir()
    return written.rename(tmp_path / "alone/report.html")


def visit(page: Path, *options: str) -> Visit:
    """Open a page in headless Chromium."""
    folder = page.parent
    command = [
        *("chromium", *FLAGS),
        "--host-resolver-rules=MAP * ~NOTFOUND",  # what asks for an address outside does not get there
        f"--user-data-dir={folder / 'profile'}",
        *("--window-size=900,2600", "--hide-scrollbars", "--force-device-scale-factor=1"),
        *("--dump-dom", f"--screenshot={folder / 'picture.png'}", f"--log-net-log={folder / 'net.json'}"),
        *options,
        page.as_uri(),
    ]
    # A session of its own: the browser starts many processes, and all of them must end.
    browser = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        dom, errors = browser.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):  # all have ended by themselves
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    assert browser.returncode == 0, errors
    return Visit(dom, folder / "picture.png", requests_of_the_page(folder / "net.json"))


def requests_of_the_page(log: Path) -> list[str]:
    """Return the addresses that the page asked for, from the browser's own log of its network."""
    events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    assert events
    # A request that the browser makes for itself, to look for updates, has no origin.
    return [params["url"] for params in events if params.get("initiator", "not an origin") != "not an origin"]


def bands(picture: Path, gap: int = 100) -> list[int]:
    """Return the number of pixels of the bars' colour in each part of the picture that has some.

    Parts are separated by at least `gap` rows of pixels without that colour.
    """
    with Image.open(picture) as image:
        pixels = image.convert("RGB")
    width, height = pixels.size
    counts = [0] * height
    for place, colour in enumerate(pixels.get_flattened_data()):
        counts[place // width] += colour == BAR_COLOUR
    rows = [row for row, count in enumerate(counts) if count]
    begins = [after for before, after in pairwise([-gap - 1, *rows]) if after - before > gap]
    return [sum(counts[begin:end]) for begin, end in pairwise([*begins, height])]


def test_the_report_shows_its_three_charts_and_loads_nothing_from_elsewhere(page: Path) -> None:
    seen = visit(page)
    assert "<h1>Sales in 2026</h1>" in seen.dom
    sources = re.findall(r'\b(?:src|href)="([^"]{0,26})', seen.dom)
    assert sources == ["data:image/svg+xml;base64,"] * 3
    assert seen.requests == []
    charts = bands(seen.picture)
    assert len(charts) == 3
    assert min(charts) > 5000  # pixels: bars, and not the thin line of an empty chart
    with Image.open(seen.picture) as picture:
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 24) or ()) > 20  # text is there too


def test_the_browser_would_show_a_page_that_loads_from_elsewhere(page: Path) -> None:
    picture = "http://charts.example.com/chart.png"
    page.write_text(page.read_text().replace("</body>", f'<img src="{picture}"></body>'))
    assert visit(page).requests == [picture]


@pytest.mark.parametrize("dark", [True, False])
def test_the_report_can_be_read_on_a_dark_and_on_a_light_ground(page: Path, dark: bool) -> None:
    seen = visit(page, f"--blink-settings=preferredColorScheme={0 if dark else 1}")
    with Image.open(seen.picture) as image:
        picture = image.convert("L")
        coloured = image.convert("RGB")
    heading = picture.crop((0, 0, picture.width, 150))
    counts = heading.histogram()  # of each grey: what there is most of is the ground
    assert counts.index(max(counts)) in (range(50) if dark else [255])
    assert counts[255 if dark else 0] > 0  # the letters
    # A chart keeps its white ground and its black text.
    bar = next(place for place, colour in enumerate(coloured.get_flattened_data()) if colour == BAR_COLOUR)
    chart = picture.crop((0, bar // picture.width, picture.width, bar // picture.width + 200)).histogram()
    assert chart[255] > 20_000
    assert chart[0] > 0
