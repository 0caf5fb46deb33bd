"""What pytest-celery asks inside a worker's container. The engine runs this next to the worker.

A container sees its own processes only. Here they are the worker and its children.
"""

import json
import os

import psutil

COLUMNS = ["pid", "name", "username", "cmdline", "cpu_percent", "memory_percent", "create_time"]


def get_running_processes_info(columns: list[str] | None = None) -> str:
    """Return the `columns` of the worker's processes, as a JSON list.

    Their name is celery. The system knows them by the name of the supervisor, from which they were forked.
    """
    worker = psutil.Process(int(os.environ["CONTAINER_PID"]))
    processes = [worker, *worker.children(recursive=True)]
    name = {"name": "celery"} if "name" in (columns or COLUMNS) else {}
    return json.dumps([process.as_dict(columns or COLUMNS) | name for process in processes])
