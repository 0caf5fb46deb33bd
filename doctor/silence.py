"""What the reader has silenced: in a line of code, or in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from doctor.catalogue import RULES
from doctor.findings import Finding

COMMENT = re.compile(r"#\s*doctor:\s*ignore\[([\w\s,-]+)\]")


class BadSilence(ValueError):  # noqa: N818 - the text says all
    """pyproject.toml has something under [tool.celery-doctor] that cannot be used."""


def ignored_ids() -> set[str]:
    """Return the ids that the nearest pyproject.toml ignores. Raises `BadSilence` for what is no id."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            return _read(path)
    return set()


def _read(path: Path) -> set[str]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("celery-doctor", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSilence(f"{path}: {error}") from None
    ids = table.get("ignore", [])
    wrong = [one for one in ids if one not in RULES] if isinstance(ids, list) else [ids]
    if wrong or set(table) - {"ignore"}:
        unknown = wrong or sorted(set(table) - {"ignore"})
        raise BadSilence(
            f"{path}, [tool.celery-doctor]: {unknown[0]!r} is not known; write ignore = [ids of findings]"
        )
    return set(ids)


def is_silenced(finding: Finding, ignored: set[str]) -> bool:
    """Tell whether a finding is silenced: for the project, or by a comment in its line."""
    return finding.id in ignored or finding.id in _ids_in_line(finding.place.path, finding.place.line)


def _ids_in_line(path: Path | None, line: int) -> set[str]:
    if path is None:
        return set()
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    comment = COMMENT.search(lines[line - 1]) if 0 < line <= len(lines) else None
    return {one.strip() for one in comment[1].split(",")} if comment else set()
