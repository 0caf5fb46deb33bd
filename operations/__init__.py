"""Operate a running app: is it healthy, how is it doing, end a task, submit one from an async program."""
