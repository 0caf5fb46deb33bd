"""Routes by task name."""

from celery_app import app

# A pattern of task names, and where such tasks go. The first that matches is taken.
ROUTES = {
    "exercise.*": {"queue": "advanced"},
    "labels.print": {"queue": "realworld"},
}


@app.task
def pack(order: int) -> str:
    """Pack an order: simulated."""
    return f"packed {order}"


@app.task(name="labels.print")
def print_label(order: int) -> str:
    """Print a label: simulated."""
    return f"label {order}"
