"""Is anybody there? Tasks that show that messages get through.

Queue: health.
"""

from celery_app import app
from services.arguments import checked


@app.task
@checked
def ping(message: str = "ping") -> str:
    """Return `message`: proof that broker, worker and result backend work together."""
    return message
