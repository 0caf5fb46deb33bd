"""the name stays: other programs send it by name"""

from celery_app import app

# A pattern of task names, and where such tasks go. The first that matches is taken.
ROUTES = {
    "exercise.pack": {"queue": "advanced"},
    "exercise.print": {"queue": "realworld"},
}


@app.task
def pack(order: int) -> str:
    """Pack an order: simulated."""
    return f"packed {order}"


@app.task(name="exercise.print")
def print_label(order: int) -> str:
    """Print a label: simulated."""
    return f"label {order}"
