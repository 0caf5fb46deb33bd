"""What all parts of the local engine have: a clear answer where they know no answer."""

from typing import NoReturn


class NotLocal(NotImplementedError, AttributeError):
    """The local engine does not know a call. Also an AttributeError, so that `hasattr` answers no."""

    def __init__(self, call: str) -> None:
        super().__init__(f"the local engine does not know {call}: run this test with --docker")


class Part:
    """A part of Docker's interface."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotLocal(f"{type(self).__name__}.{name}")
