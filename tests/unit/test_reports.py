"""Reports: right numbers, safe pages, and no half of one."""

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager

from services.database import writing
from services.models import Order
from services.reports import generate_report, period_bounds
from tests.unit.conftest import no_file_over


def add_orders(*orders: tuple[str, str, str, int, str]) -> None:
    """Add orders given as moment, product, country, quantity and unit price."""
    with writing() as session:
        for number, (moment, product, country, quantity, price) in enumerate(orders):
            session.add(
                Order(
                    order_id=f"A-{number}",
                    customer="Ada",
                    email="ada@example.com",
                    country=country,
                    product=product,
                    quantity=quantity,
                    unit_price=Decimal(price),
                    ordered_at=datetime.fromisoformat(moment),
                )
            )


def table_rows(page: str) -> list[tuple[str, str, str]]:
    return re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td></tr>", page, re.DOTALL)


def drawings(page: str) -> list[str]:
    found = re.findall(r'<img src="data:image/svg\+xml;base64,(.*?)"', page)
    return [base64.b64decode(drawing).decode() for drawing in found]


@pytest.mark.parametrize(
    ("period", "begin", "end"),
    [
        ("2026", datetime(2026, 1, 1), datetime(2027, 1, 1)),
        ("2026-10", datetime(2026, 10, 1), datetime(2026, 11, 1)),
        ("2026-12", datetime(2026, 12, 1), datetime(2027, 1, 1)),
        ("2028-02", datetime(2028, 2, 1), datetime(2028, 3, 1)),
        ("2026-W41", datetime(2026, 10, 5), datetime(2026, 10, 12)),
        ("2026-W01", datetime(2025, 12, 29), datetime(2026, 1, 5)),
        ("2026-W53", datetime(2026, 12, 28), datetime(2027, 1, 4)),
    ],
)
def test_a_period_is_a_year_a_month_or_a_week(period: str, begin: datetime, end: datetime):
    assert period_bounds(period) == (begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC))


UNKNOWN = ["", "2026-13", "2026-00", "2026-W00", "2025-W53", "2026-W99", "26-10", "10-2026", "2026-1"]
UNKNOWN += ["last month", "../2026", "2026-10\n", "٢٠٢٦", "9999"]


@pytest.mark.parametrize("period", UNKNOWN)
def test_an_unknown_period_is_refused_with_the_forms_that_are_known(shop: Path, period: str):
    with pytest.raises(ValueError, match="give a month like 2026-10, a week like 2026-W41") as refused:
        generate_report(period)
    assert str(refused.value).startswith(f"period={period!r}: ")
    assert not (shop / "out").exists()


def test_a_period_without_orders_is_refused_and_says_where_there_are_some(any_shop: Path):
    with pytest.raises(ValueError, match="period='2026-10': no order in it; import orders first"):
        generate_report("2026-10")
    add_orders(
        ("2026-09-30T23:59:59Z", "Mug", "GB", 1, "1.00"), ("2026-11-01T00:00:00Z", "Mug", "GB", 1, "1.00")
    )
    with pytest.raises(ValueError, match="no order in it; the orders are from 2026-09-30 to 2026-11-01"):
        generate_report("2026-10")
    assert not (any_shop / "out").exists()


def test_a_report_adds_up_the_orders_of_its_period_only(any_shop: Path):
    add_orders(
        ("2026-09-30T23:59:59Z", "Mug", "GB", 1, "99.00"),
        ("2026-10-01T00:00:00Z", "Mug", "GB", 2, "8.40"),
        ("2026-10-31T23:59:59Z", "Teapot", "DE", 1, "18.75"),
        ("2026-11-01T00:00:00Z", "Mug", "GB", 1, "99.00"),
    )
    result = generate_report("2026-10")
    assert result == {
        "period": "2026-10",
        "orders": 2,
        "revenue": "35.55",
        "html": "out/reports/2026-10.html",
        "pdf": "out/reports/2026-10.pdf",
    }
    page = (any_shop / result["html"]).read_text(encoding="utf-8")
    assert "2 orders from 1 customers, revenue 35.55." in page
    rows = table_rows(page)
    assert [row for row in rows[:31] if row[1] != "0"] == [
        ("2026-10-01", "1", "16.80"),
        ("2026-10-31", "1", "18.75"),
    ]
    assert [name for name, *_ in rows[:31]] == [f"2026-10-{day:02}" for day in range(1, 32)]
    assert rows[31:] == [
        ("Teapot", "1", "18.75"),
        ("Mug", "1", "16.80"),
        ("DE", "1", "18.75"),
        ("GB", "1", "16.80"),
    ]


def test_sums_are_exact_to_the_cent_however_large(any_shop: Path):
    dear, cheap = (99_999, "9999999999.99"), (1, "0.01")
    moment = "2026-10-05T00:00:00Z"
    orders = [(moment, "Mug", "GB", *dear), *[(moment, "Mug", "GB", *cheap)] * 3]
    orders += [(moment, "Pen", "DE", *dear), *[(moment, "Pen", "DE", *cheap)] * 4]  # one cent more
    orders += [(moment, "Ship", "FR", 1_000_000, "9999999999.99")] * 30  # more cents than 64 bits hold
    add_orders(*orders)
    result = generate_report("2026-10")
    each = {"Mug": Decimal("999989999999000.04"), "Pen": Decimal("999989999999000.05")}
    each["Ship"] = 30 * 1_000_000 * Decimal("9999999999.99")
    assert each["Mug"] == 99_999 * Decimal("9999999999.99") + 3 * Decimal("0.01")
    assert result["revenue"] == str(sum(each.values()))
    page = (any_shop / result["html"]).read_text(encoding="utf-8")
    products = [(name, revenue) for name, _, revenue in table_rows(page)[31:34]]
    assert products == [(name, f"{each[name]:,.2f}") for name in ("Ship", "Pen", "Mug")]
    assert f"revenue {sum(each.values()):,.2f}." in page


def test_a_year_is_shown_by_months(shop: Path):
    add_orders(("2026-10-05T00:00:00Z", "Mug", "GB", 1, "8.40"))
    rows = table_rows((shop / generate_report("2026")["html"]).read_text(encoding="utf-8"))
    assert [name for name, *_ in rows[:-2]] == [f"2026-{month:02}" for month in range(1, 13)]
    assert rows[9][1:] == ("1", "8.40")


def test_the_page_needs_no_other_file_and_both_show_the_charts(shop: Path):
    add_orders(("2026-10-05T00:00:00Z", "Mug", "GB", 1, "8.40"))
    result = generate_report("2026-W41")
    page = (shop / result["html"]).read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert [name for name, *_ in table_rows(page)[:7]] == [f"2026-10-{day:02}" for day in range(5, 12)]
    assert len(drawings(page)) == 3
    for drawing in drawings(page):
        shapes = ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}path")
        assert any("fill: #2f6f4f" in shape.get("style", "") for shape in shapes), "no bar is drawn"
    document = (shop / result["pdf"]).read_bytes()
    assert document.startswith(b"%PDF-")
    assert document.rstrip().endswith(b"%%EOF")
    assert b"/Count 4" in document  # a cover, and a page for each chart


def test_a_name_from_outside_is_shown_as_text(shop: Path):
    names = ["<script>alert(1)</script>", "$5 or $6", r"$\frac{$", 'a & b\n"c" \'', "x" * 200, "{sections}"]
    add_orders(*[("2026-10-05T00:00:00Z", name, "GB", 1, "8.40") for name in names])
    page = (shop / generate_report("2026-W41")["html"]).read_text(encoding="utf-8")
    assert "<script" not in page
    assert {unescape(name) for name, *_ in table_rows(page)} >= set(names)


# --- Names in charts ------------------------------------------------------------------------------------


def product_chart(shop: Path, *names: str) -> tuple[str, list[str]]:
    """Return the chart of products as SVG, and its labels from top to bottom. The first sells best."""
    add_orders(*[("2026-10-05T00:00:00Z", name, "GB", 100 - n, "1.00") for n, name in enumerate(names)])
    page = (shop / generate_report("2026-W41")["html"]).read_text(encoding="utf-8")
    drawing = drawings(page)[1]
    ElementTree.fromstring(drawing)  # what is not well-formed, a browser does not show
    texts = [unescape(text) for text in re.findall("<!-- (.*?) -->", drawing)]
    start = texts.index("revenue") + 1
    return drawing, texts[start : start + len(names)]


@pytest.fixture
def few_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let matplotlib find no fonts but its own, whatever this computer has."""
    own = [entry for entry in fontManager.ttflist if entry.fname.startswith(matplotlib.get_data_path())]
    monkeypatch.setattr(fontManager, "ttflist", own)


def make_font(path: Path, letters: str) -> None:
    """Write a font that draws each of `letters` as a triangle."""
    pen = TTGlyphPen(None)
    pen.moveTo((100, 0))
    pen.lineTo((900, 0))
    pen.lineTo((500, 800))
    pen.closePath()
    names = [f"letter{ord(letter):x}" for letter in letters]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder([".notdef", *names])
    font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names, strict=True)})
    font.setupGlyf(dict.fromkeys([".notdef", *names], pen.glyph()))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", *names], (1000, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Triangles", "styleName": "Regular", "psName": "Triangles"})
    font.setupOS2(usWeightClass=400)
    font.setupPost()
    font.save(path)


def test_names_that_differ_have_labels_that_differ(shop: Path):
    names = ["x" * 200, "x" * 199 + "y", "x" * 199 + "z", "y" + "x" * 199, "x" * 100, "a b", "a  b", "a\nb"]
    _, labels = product_chart(shop, *names)
    assert labels == [
        f"{'x' * 24}…{'x' * 15}",
        f"{'x' * 24}…{'x' * 14}y",
        f"{'x' * 24}…{'x' * 14}z",
        f"y{'x' * 23}…{'x' * 15}",
        f"{'x' * 24}…{'x' * 15} (2)",
        *("a b", "a b (2)", "a b (3)"),
    ]


def test_a_name_with_characters_that_no_drawing_holds_leaves_the_chart_whole(shop: Path):
    _, labels = product_chart(shop, "a\x01b", "a\x1b\x7fb", "a\uffffb", "--> <b>", "\x0b-")
    assert labels == ["a b", "a b (2)", "a b (3)", "- -> <b>", "-"]  # a comment writes -- as two


@pytest.mark.filterwarnings("error")
def test_characters_that_no_font_has_are_boxes_and_the_chart_says_so(shop: Path, few_fonts: None):
    drawing, labels = product_chart(shop, "李明", "张伟", "Zoë")
    assert labels == ["□□", "□□ (2)", "Zoë"]
    assert "□: a character that no font of this computer has. The HTML page shows it" in drawing
    page = (shop / "out/reports/2026-W41.html").read_text(encoding="utf-8")
    assert [name for name, *_ in table_rows(page)[7:10]] == ["李明", "张伟", "Zoë"]


@pytest.mark.filterwarnings("error")
def test_a_font_of_this_computer_that_has_the_characters_is_used(shop: Path, few_fonts: None, tmp_path: Path):
    make_font(tmp_path / "triangles.ttf", "李明张伟")
    fontManager.addfont(tmp_path / "triangles.ttf")
    drawing, labels = product_chart(shop, "李明", "张伟", "Zoë")
    assert labels == ["李明", "张伟", "Zoë"]
    assert "no font" not in drawing
    assert len(set(re.findall(r'id="Triangles-\w+"', drawing))) == 4
    assert b"Triangles" in (shop / "out/reports/2026-W41.pdf").read_bytes()


def test_all_names_of_a_chart_are_drawn_without_a_note_if_there_are_fonts(shop: Path):
    drawing, labels = product_chart(shop, "Ärmel", "Ελληνικά", "Кириллица")
    assert labels == ["Ärmel", "Ελληνικά", "Кириллица"]
    assert "no font" not in drawing


def test_reports_can_be_drawn_in_several_threads_at_once(shop: Path):
    add_orders(*[(f"2026-01-{day:02}T00:00:00Z", f"Mug {day}", "GB", day, "1.00") for day in (6, 13)])
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(generate_report, ["2026-W02", "2026-W03"]))
    for day, result in zip((6, 13), results, strict=True):
        page = (shop / result["html"]).read_text(encoding="utf-8")
        assert result["revenue"] == f"{day}.00"
        assert f"<td>Mug {day}</td>" in page


def test_a_full_disk_leaves_the_old_report(shop: Path):
    add_orders(("2026-10-05T00:00:00Z", "Mug", "GB", 1, "8.40"))
    folder = shop / "out" / "reports"
    folder.mkdir(parents=True)
    for suffix in ("html", "pdf"):
        (folder / f"2026-W41.{suffix}").write_text("old")
    with pytest.raises(OSError, match="File too large"), no_file_over(10_000):
        generate_report("2026-W41")
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "2026-W41.html": "old",
        "2026-W41.pdf": "old",
    }
