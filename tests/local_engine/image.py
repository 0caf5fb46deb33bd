"""What an image says of its containers: their command, their environment, their folder.

Nothing is built and nothing is fetched: local processes run what is installed here. A Dockerfile is read for
these three alone.
"""

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import celery

from tests.local_engine.part import NotLocal, Part

COMMANDS = {"redis": ["redis-server"]}  # of images that are fetched
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass
class Image(Part):
    """What a container starts with. `command` is a list, or text as for a shell."""

    id: str
    command: list[str] | str = ""
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"

    def command_in(self, environment: Mapping[str, str]) -> list[str]:
        """Return the command for a container with this environment."""
        if isinstance(self.command, list):
            return self.command
        return shlex.split(_filled(self.command, environment))


def fetched(name: str) -> Image:
    """Return the image `name` of a registry. Its command is empty if it is none of ours."""
    return Image(name, command=COMMANDS.get(name.partition(":")[0], ""))


def built(name: str, dockerfile: Path, arguments: Mapping[str, str]) -> Image:
    """Return the image that `dockerfile` describes with these build arguments.

    Raises `NotLocal` for another version of Celery, and for an ENTRYPOINT.
    """
    version = arguments.get("CELERY_VERSION")
    if version and version != celery.__version__:
        raise NotLocal(f"the image {name} with Celery {version}: {celery.__version__} is installed here")
    image, known = Image(name), dict[str, str]()
    for instruction, rest in _instructions(dockerfile.read_text()):
        match instruction:
            case "FROM":  # a further stage begins anew
                image, known = Image(name), {}
            case "ARG":
                argument, _, default = rest.partition("=")
                known[argument] = arguments.get(argument, _filled(default, known).strip("\"'"))
            case "ENV":
                new = {key: _filled(value, known) for key, value in _pairs(rest).items()}
                known |= new
                image.environment |= new
            case "WORKDIR":
                image.folder = _filled(rest, known)
            case "CMD":
                image.command = json.loads(rest) if rest.startswith("[") else rest
            case "ENTRYPOINT":
                raise NotLocal(f"ENTRYPOINT in {dockerfile}")
    image.environment.pop("PATH", None)  # its programs are not here
    return image


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    without_comments = re.sub(r"^\s*#.*\n", "", dockerfile, flags=re.MULTILINE)
    lines = re.sub(r"\\[ \t]*\n", " ", without_comments).splitlines()
    words = [line.split(maxsplit=1) for line in lines]
    return [(word[0].upper(), word[1].strip()) for word in words if len(word) == 2]


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of `A=1 B="two words"`, or the one of the older form `A two words`."""
    first, *rest = text.split(maxsplit=1)
    if "=" not in first:
        return {first: " ".join(rest)}
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(text))}


def _filled(text: str, known: Mapping[str, str]) -> str:
    return VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)
