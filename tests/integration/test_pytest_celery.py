from tasks.basic_tasks import add

def test_a(celery_setup):
    assert add.delay(4, 5).get(timeout=10) == 9
def test_b(celery_setup):
    assert celery_setup.ready(ping=True)
