"""pytest-celery on local processes: its broker, backend and worker nodes without Docker.

`engine` does for pytest-celery what a Docker engine does, and `local_fixtures` give it to the plugin.
`pytest --docker` takes `docker_fixtures` instead. With both, `project_fixtures` run this project's app.
"""
