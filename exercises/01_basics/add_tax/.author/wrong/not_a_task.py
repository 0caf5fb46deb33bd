"""with_tax is there, but is not a task"""


def with_tax(pence: int, percent: int) -> int:
    return round(pence * (100 + percent) / 100)
