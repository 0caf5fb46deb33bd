"""A worker that includes this has the connections that kombu and Celery bring, without transport.py."""

import kombu

from celery_app import app
from transport import Messages

Messages.Connection = kombu.Connection  # type: ignore[assignment]
app.loader.override_backends = {}
