"""a pattern is too wide"""

from celery_app import app

# A pattern of task names, and where such tasks go. The first that matches is taken.
ROUTES = {
    "labels.print": {"queue": "realworld"},
    "*": {"queue": "advanced"},
}


@app.task
def pack(order: int) -> str:
    """Pack an order: simulated."""
    return f"packed {order}"


@app.task(name="labels.print")
def print_label(order: int) -> str:
    """Print a label: simulated."""
    return f"label {order}"
