"""pytest-celery on local processes: its broker, backend and worker nodes without Docker.

`engine` does for pytest-celery what a Docker engine does, and `engine_fixtures` give it to the plugin.
`project_fixtures` run this project's app, with `local_fixtures` from its own folder.
`pytest --docker` takes `docker_fixtures` in the place of the engine and the folder.
"""
