"""How many messages a worker takes."""

from celery_app import app
from lab.workshop.services import simulate_work

# TODO 1: as few as possible.
PREFETCH = 4  # messages for each pool child: celery worker --prefetch-multiplier


# TODO 2: acknowledge late.
@app.task(acks_late=False)
def work(name: str, seconds: float) -> str:
    """Work for some seconds: simulated."""
    simulate_work(seconds)
    return name
