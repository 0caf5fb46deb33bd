"""A sales report for a month, a week or a year: an HTML page and a PDF, with charts.

What to learn here: let the database add up, so that a report over millions of orders reads a few rows;
draw with matplotlib's objects, which many workers can do at once, and not with pyplot's global state; and
show nothing of a report until all of it is written.
"""

import base64
import io
import re
import textwrap
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Numeric, String, cast, func, select, type_coerce
from sqlalchemy.orm import Session
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from services.database import reading
from services.models import Order
from services.paths import atomic_write
from settings import settings

if TYPE_CHECKING:  # matplotlib takes half a second to load, so only a process that draws loads it
    from matplotlib.figure import Figure

TOP = 10  # products and countries in a report
PERIOD_FORMS = "a month like 2026-10, a week like 2026-W41 or a year like 2026"

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sales in {period}</title>
<style>
body {{ font-family: sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: 0.2rem 1rem; border-bottom: 1px solid #ccc; text-align: right; }}
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

REVENUE = func.sum(type_coerce(Order.quantity * Order.unit_price, Numeric(16, 2)))


def _sales(session: Session, period: str, begin: datetime, end: datetime) -> Sales:
    within = (Order.ordered_at >= begin) & (Order.ordered_at < end)
    totals = select(func.count(), func.count(Order.email.distinct()), REVENUE).where(within)
    orders, customers, revenue = session.execute(totals).one()
    if not orders:
        first, last = session.execute(select(func.min(Order.ordered_at), func.max(Order.ordered_at))).one()
        there = f"the orders are from {first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else "import orders first"
        raise ValueError(f"period={period!r}: no order in it; {there}")

    def lines(key: ColumnElement[str], most: int | None = None) -> list[Line]:
        order = REVENUE.desc() if most else key
        found = (
            select(key, func.count(), REVENUE).where(within).group_by(key).order_by(order, key).limit(most)
        )
        return [Line(*row) for row in session.execute(found)]

    # The first 10 characters of a moment are its day, the first 7 its month. Both databases can do this.
    length = 7 if re.fullmatch("[0-9]{4}", period) else 10
    day_or_month = func.substr(cast(func.date(Order.ordered_at), String), 1, length)
    sold = {line.name: line for line in lines(day_or_month)}
    days = ((begin + timedelta(days=n)).date().isoformat()[:length] for n in range((end - begin).days))
    return Sales(
        period,
        orders,
        customers,
        revenue,
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
    names = [textwrap.shorten(line.name, 40, placeholder="…") for line in lines]
    # Names come from outside: "$5 or $6" is text and not a formula to be set.
    axes.set_yticks(places, names, fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.margins(x=0.1, y=0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("revenue")
    return figure


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
