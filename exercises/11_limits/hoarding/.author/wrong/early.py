"""the worker takes one more: acknowledge late"""

from celery_app import app
from lab.workshop.services import simulate_work

PREFETCH = 1  # messages for each pool child: celery worker --prefetch-multiplier


@app.task(acks_late=False)
def work(name: str, seconds: float) -> str:
    """Work for some seconds: simulated."""
    simulate_work(seconds)
    return name
