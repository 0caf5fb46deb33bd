"""The processes of a sandbox, on the standard library alone: a supervisor starts in a tenth of a second."""
