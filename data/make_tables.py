"""Make an orders table: invented orders, the same for the same seed, some rows bad on purpose.

    python data/make_tables.py --rows 1000000 --bad 0.01 --output data/out/big.csv

data/orders.csv was made with the defaults.
"""

import argparse
import csv
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = ["order_id", "customer", "email", "country", "product", "quantity", "unit_price", "ordered_at"]
FIRST_NAMES = ["Ada", "Bao", "Chiara", "Dilnoza", "Emeka", "Freya", "Goran", "Hana", "Inés", "Jun", "Zoë"]
LAST_NAMES = ["Abara", "Berg", "Chen", "Díaz", "Eklund", "Fofana", "Grbić", "Haddad", "Ito", "Kowalski", "王"]
COUNTRIES = ["CN", "DE", "ES", "FR", "GB", "IT", "JP", "NG", "PL", "US"]
PRODUCTS = {
    "Notebook, lined": "3.20",
    "Notebook, plain": "3.00",
    "Fountain pen": "24.90",
    'Monitor 27"': "189.00",
    "Desk lamp\nwarm white": "39.50",
    "Teapot": "18.75",
    "Blue mug": "8.40",
    "Wool blanket": "64.00",
}
YEAR = datetime(2026, 1, 1, tzinfo=UTC)

Row = dict[str, str]


def good_row(number: int, dice: random.Random) -> Row:
    """Return order `number`."""
    first, last = dice.choice(FIRST_NAMES), dice.choice(LAST_NAMES)
    product = dice.choice(list(PRODUCTS))
    ordered_at = YEAR + timedelta(seconds=dice.randrange(365 * 24 * 3600))
    values = [
        f"ORD-{number:08}",
        f"{first} {last}",
        f"customer{dice.randrange(5000)}@example.com",
        dice.choice(COUNTRIES),
        product,
        str(dice.randint(1, 9)),
        PRODUCTS[product],
        ordered_at.isoformat().replace("+00:00", "Z"),
    ]
    return dict(zip(HEADER, values, strict=True))


# What goes wrong in real tables. Each makes one value of a row bad.
MISTAKES: list[Callable[[Row], Row]] = [
    lambda row: row | {"quantity": "-1"},
    lambda row: row | {"quantity": "two"},
    lambda row: row | {"unit_price": row["unit_price"].replace(".", ",")},
    lambda row: row | {"email": row["email"].replace("@", " at ")},
    lambda row: row | {"country": "Germany"},
    lambda row: row | {"customer": ""},
    lambda row: row | {"ordered_at": "31/12/2026"},
    lambda row: row | {"order_id": "=1+1", "quantity": "0"},
]


def rows(count: int, bad: float, seed: int) -> Iterator[list[str]]:
    """Yield `count` rows, about the share `bad` of them bad."""
    dice = random.Random(seed)
    for number in range(1, count + 1):
        row = good_row(number, dice)
        if dice.random() < bad:
            row = dice.choice(MISTAKES)(row)
        yield list(row.values())


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=500, help="how many rows (default: 500)")
    parser.add_argument(
        "--bad", type=float, default=0.04, help="the share of bad rows, 0 to 1 (default: 0.04)"
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, other orders (default: 1)")
    parser.add_argument("--output", type=Path, default=HERE / "orders.csv", help="the file to write")
    options = parser.parse_args()
    if options.rows < 0 or not 0 <= options.bad <= 1:
        parser.error("--rows must be 0 or more, and --bad between 0 and 1")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows(options.rows, options.bad, options.seed))
    print(f"{options.output}: {options.rows:,} rows")


if __name__ == "__main__":
    main()
