"""the result is no whole number of pence"""

from celery_app import app


@app.task
def with_tax(pence, percent):
    return pence * (100 + percent) / 100 + 0.001
