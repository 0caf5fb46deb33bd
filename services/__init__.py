"""The work itself: plain Python that knows nothing of Celery."""
