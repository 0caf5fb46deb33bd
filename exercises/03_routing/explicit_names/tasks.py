"""Routes by task name."""

from celery_app import app

# A pattern of task names, and where such tasks go. The first that matches is taken.
# TODO 1: where does pack go?
# TODO 2: what is the name of the other task?
# TODO 3: no other task goes here.
ROUTES = {
    "*.pack": {"queue": "realworld"},
    "exercise.print*": {"queue": "realworld"},
}


@app.task
def pack(order: int) -> str:
    """Pack an order: simulated."""
    return f"packed {order}"


@app.task(name="labels.print")
def print_label(order: int) -> str:
    """Print a label: simulated."""
    return f"label {order}"
