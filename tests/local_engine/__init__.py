"""pytest-celery on local processes: its broker, backend and worker nodes without Docker.

`engine` does what a Docker engine does for pytest-celery, `fixtures` gives it to the plugin, and `project`
makes the nodes run this project's app. `pytest --docker` leaves out the first two.
"""
