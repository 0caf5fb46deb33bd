"""The web front: an HTTP API over the Celery app, and one page that uses it."""
