"""A sales report for a month, a week or a year: an HTML page and a PDF, with charts.

What to learn here: let the database add up, so that a report over millions of orders reads a few rows;
draw with matplotlib's objects, which many workers can do at once, and not with pyplot's global state; and
show nothing of a report until all of it is written.
"""

import base64
import io
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, ColumnElement, String, cast, func, select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.database import reading
from services.models import Order
from services.paths import atomic_write
from settings import settings

if TYPE_CHECKING:  # matplotlib takes half a second to load, so only a process that draws loads it
    from matplotlib.figure import Figure

TOP = 10  # products and countries in a report
LABEL = 40  # characters of a name in a chart
BOX = "□"
NOT_DRAWN = "a character that no font of this computer has. The HTML page shows it in its table."
JOINERS = "\u200c\u200d"  # invisible, but letters of some scripts look different beside them
PERIOD_FORMS = "a month like 2026-10, a week like 2026-W41 or a year like 2026"

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sales in {period}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font-family: sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; background: white; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 0.2rem 1rem; border-bottom: 1px solid gray; text-align: right; }}
td:first-child {{ text-align: left; }}
</style>
</head>
<body>
<h1>Sales in {period}</h1>
<p>{summary}</p>
{sections}
</body>
</html>
"""


class ReportResult(TypedDict):
    """What a report says in short, and where it lies. Paths start at the data folder."""

    period: str
    orders: int
    revenue: str  # exact, as text
    html: str
    pdf: str


@dataclass(frozen=True)
class Line:
    """One line of a table in the report, and one bar of its chart."""

    name: str
    orders: int
    revenue: Decimal


@dataclass(frozen=True)
class Sales:
    """The numbers of a period. `over_time` has a line for each day, or for each month of a year."""

    period: str
    orders: int
    customers: int
    revenue: Decimal
    over_time: list[Line]
    products: list[Line]
    countries: list[Line]

    @property
    def summary(self) -> str:
        """The totals as one sentence."""
        return f"{self.orders:,} orders from {self.customers:,} customers, revenue {self.revenue:,.2f}."


def generate_report(period: str) -> ReportResult:
    """Write the report for `period` as HTML and PDF to `out/reports/` in the data folder.

    `period` is a month ("2026-10"), an ISO week ("2026-W41") or a year ("2026"), in UTC. The HTML page
    holds its charts and needs no other file.

    Raises `ValueError` for any other period. Raises it too for a period without an order: an empty report
    hides what is most often a wrong period or a missing import.
    """
    begin, end = period_bounds(period)
    with reading() as session:
        sales = _sales(session, period, begin, end)
    # Both are made before one is written: an error leaves the old pair and not half of a new one.
    sections = {
        "Revenue over time": sales.over_time,
        f"Products by revenue, the first {TOP}": sales.products,
        f"Countries by revenue, the first {TOP}": sales.countries,
    }
    charts = {title: draw_bars(title, lines) for title, lines in sections.items()}
    page = _html(sales, sections, charts).encode()
    document = _pdf(sales, list(charts.values()))
    paths = [Path("out", "reports", f"{period}{suffix}") for suffix in (".html", ".pdf")]
    for path, content in zip(paths, (page, document), strict=True):
        with atomic_write(settings.data_dir / path) as file:
            file.write(content)
    return {
        "period": period,
        "orders": sales.orders,
        "revenue": str(sales.revenue),
        "html": str(paths[0]),
        "pdf": str(paths[1]),
    }


def period_bounds(period: str) -> tuple[datetime, datetime]:
    """Return the first moment of `period` and the first one after it, in UTC.

    Raises `ValueError` for what is not a month, a week or a year.
    """
    form = re.fullmatch(r"(?P<year>20\d\d)(-(?P<month>0[1-9]|1[0-2])|-W(?P<week>\d\d))?", period, re.ASCII)
    if form is None:
        raise ValueError(f"period={period!r}: not a period; give {PERIOD_FORMS}")
    year = int(form["year"])
    if form["week"]:
        try:
            begin = datetime.fromisocalendar(year, int(form["week"]), 1)
        except ValueError:
            raise ValueError(f"period={period!r}: {year} has no such week; give {PERIOD_FORMS}") from None
        end = begin + timedelta(weeks=1)
    elif form["month"]:
        begin = datetime(year, int(form["month"]), 1)
        end = (begin + timedelta(days=31)).replace(day=1)
    else:
        begin = datetime(year, 1, 1)
        end = datetime(year + 1, 1, 1)
    return begin.replace(tzinfo=UTC), end.replace(tzinfo=UTC)


# --- The numbers ---------------------------------------------------------------------------------------

# Exact: whole cents, since SQLite keeps a price as a float, which a sum would carry on. And in two halves,
# since quantity times cents may have 18 digits: a few of them overflow what an integer holds.
BILLION = 10**9
CENTS = Order.quantity * cast(func.round(Order.unit_price * 100), BigInteger)
HIGH = cast(func.sum(CENTS // BILLION), BigInteger)
LOW = cast(func.sum(CENTS % BILLION), BigInteger)


def _money(high: int, low: int) -> Decimal:
    return Decimal(high * BILLION + low).scaleb(-2)


def _sales(session: Session, period: str, begin: datetime, end: datetime) -> Sales:
    within = (Order.ordered_at >= begin) & (Order.ordered_at < end)
    totals = select(func.count(), func.count(Order.email.distinct()), HIGH, LOW).where(within)
    orders, customers, high, low = session.execute(totals).one()
    if not orders:
        first, last = session.execute(select(func.min(Order.ordered_at), func.max(Order.ordered_at))).one()
        there = f"the orders are from {first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else "import orders first"
        raise ValueError(f"period={period!r}: no order in it; {there}")

    def lines(key: ColumnElement[str], most: int | None = None) -> list[Line]:
        by_revenue = [(HIGH + LOW // BILLION).desc(), (LOW % BILLION).desc()] if most else []
        found = select(key, func.count(), HIGH, LOW).where(within).group_by(key).order_by(*by_revenue, key)
        rows = session.execute(found.limit(most))
        return [Line(name, orders, _money(*halves)) for name, orders, *halves in rows]

    # The first 10 characters of a moment are its day, the first 7 its month. Both databases can do this.
    length = 7 if re.fullmatch("[0-9]{4}", period) else 10
    day_or_month = func.substr(cast(func.date(Order.ordered_at), String), 1, length)
    sold = {line.name: line for line in lines(day_or_month)}
    days = ((begin + timedelta(days=n)).date().isoformat()[:length] for n in range((end - begin).days))
    return Sales(
        period,
        orders,
        customers,
        _money(high, low),
        # A day without an order is shown as such, and not left out.
        [sold.get(name, Line(name, 0, Decimal(0))) for name in dict.fromkeys(days)],
        lines(Order.product.expression, TOP),
        lines(Order.country.expression, TOP),
    )


# --- The pictures and the pages --------------------------------------------------------------------------


def draw_bars(title: str, lines: list[Line]) -> "Figure":
    """Draw the revenue of each line as a horizontal bar, from top to bottom."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.28 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    places = range(len(lines))
    bars = axes.barh(places, [float(line.revenue) for line in lines], color="#2f6f4f")
    axes.bar_label(bars, [f"{line.revenue:,.0f}" for line in lines], padding=3, fontsize=8)
    names = [_one_line(line.name) for line in lines]
    fonts, missing = _fonts_for("".join(names))
    labels = _distinct([name.translate(dict.fromkeys(map(ord, missing), BOX)) for name in names])
    # Names come from outside: "$5 or $6" is text and not a formula to be set.
    axes.set_yticks(places, labels, fontsize=8, family=fonts, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("revenue")
    if missing:
        figure.supxlabel(f"{BOX}: {NOT_DRAWN}", fontsize=8)
    return figure


def _one_line(name: str) -> str:
    """Return a name for a chart: what a drawing cannot hold, such as a line break, becomes a blank."""
    visible = "".join(letter if letter.isprintable() or letter in JOINERS else " " for letter in name)
    return " ".join(visible.split())


def _distinct(names: list[str]) -> list[str]:
    """Return short labels. Long names lose their middle, and labels that would be the same get a number."""
    labels: list[str] = []
    for name in names:
        short = name if len(name) <= LABEL else f"{name[: LABEL - 16]}…{name[-15:]}"
        numbered = (f"{short} ({number})" for number in count(2))
        labels.append(next(label for label in chain([short], numbered) if label not in labels))
    return labels


def _fonts_for(text: str) -> tuple[list[str], set[str]]:
    """Return fonts of this computer that together draw `text`, and the characters that none of them has."""
    import matplotlib
    from matplotlib.font_manager import fontManager, get_font

    def not_in(path: str, letters: set[str]) -> set[str]:
        font = get_font(path)
        return {letter for letter in letters if not font.get_char_index(ord(letter))}

    fonts = ["DejaVu Sans"]
    missing = not_in(fontManager.findfont(fonts[0]), set(text) - {" ", *JOINERS})
    for entry in fontManager.ttflist:
        if not missing:
            break
        # matplotlib's own are for formulas, and one of them draws a box for every character that exists.
        others = not entry.fname.startswith(matplotlib.get_data_path())
        if others and (entry.weight, entry.style, entry.stretch) == (400, "normal", "normal"):
            still = not_in(entry.fname, missing)
            if still < missing:
                fonts.append(entry.name)
                missing = still
    return fonts, missing


def _html(sales: Sales, sections: dict[str, list[Line]], charts: dict[str, "Figure"]) -> str:
    parts = []
    for title, lines in sections.items():
        drawing = io.BytesIO()
        charts[title].savefig(drawing, format="svg")
        # As an image, each drawing keeps its own ids and styles, and can run no script.
        source = f"data:image/svg+xml;base64,{base64.b64encode(drawing.getvalue()).decode()}"
        rows = "\n".join(
            f"<tr><td>{escape(line.name)}</td><td>{line.orders:,}</td><td>{line.revenue:,.2f}</td></tr>"
            for line in lines
        )
        parts.append(
            f'<h2>{title}</h2>\n<img src="{source}" alt="Bar chart of the table below">\n'
            f"<table>\n<tr><th></th><th>Orders</th><th>Revenue</th></tr>\n{rows}\n</table>"
        )
    return PAGE.format(period=sales.period, summary=sales.summary, sections="\n".join(parts))


def _pdf(sales: Sales, charts: list["Figure"]) -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

    cover = Figure(figsize=(8, 4))
    cover.text(0.1, 0.6, f"Sales in {sales.period}", fontsize=26)
    cover.text(0.1, 0.45, sales.summary, fontsize=13)
    document = io.BytesIO()
    with PdfPages(document, metadata={"Title": f"Sales in {sales.period}"}) as pages:
        for figure in [cover, *charts]:
            pages.savefig(figure)
    return document.getvalue()
