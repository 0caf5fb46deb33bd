"""What workers run. A module is named for its queue: basic_tasks.py holds the tasks of the queue basic."""
