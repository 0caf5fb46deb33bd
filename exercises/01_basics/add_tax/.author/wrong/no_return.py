"""there is no return"""

from celery_app import app


@app.task
def with_tax(pence, percent):
    round(pence * (100 + percent) / 100)
