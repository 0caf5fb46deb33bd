"""0 means no limit at all"""

from celery_app import app
from lab.workshop.services import simulate_work

PREFETCH = 0  # messages for each pool child: celery worker --prefetch-multiplier


@app.task(acks_late=True)
def work(name: str, seconds: float) -> str:
    """Work for some seconds: simulated."""
    simulate_work(seconds)
    return name
