"""The learner's copies: an update of the course never meets what a learner has written.

Notebooks are opened in `workspace/notebooks`, and exercises are solved in `workspace/exercises`. They are not
in git. A copy that the learner has not changed follows the course. A changed one stays, and `reset` gives the
course's own back.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from services.paths import atomic_write

RECORD = ".copied.json"  # the hash of each original when it was copied, by the name of the file
KINDS = ("*.ipynb", "*.md")


def documents(folder: Path) -> dict[str, Path]:
    """Return the notebooks and texts of a folder, by name."""
    return {path.name: path for kind in KINDS for path in folder.glob(kind)}


def update(originals: Mapping[str, Path], copies: Path) -> list[str]:
    """Bring the files of `copies` up to date with `originals`, by name, and make those that are missing.

    Return the names of the copies that stay as they are although their original is newer: the learner has
    changed them. Copies that nobody has changed, of originals that are gone, are removed.
    Raises `OSError` if nothing can be written there.
    """
    copies.mkdir(parents=True, exist_ok=True)
    copied = _read(copies / RECORD)
    kept = []
    for name in sorted(originals.keys() | copied.keys()):
        original, copy = originals.get(name), copies / name
        if original and copy.exists() and _hash(copy) == _hash(original):
            copied[name] = _hash(original)
        is_own = copy.exists() and _hash(copy) != copied.get(name)
        if is_own:
            if original and _hash(original) != copied.get(name):
                kept.append(name)
        elif original is None:
            copy.unlink(missing_ok=True)
            del copied[name]
        elif not copy.exists() or _hash(original) != copied[name]:
            _copy(original, copy)
            copied[name] = _hash(original)
    _write(copies / RECORD, copied)
    return kept


def reset(originals: Mapping[str, Path], copies: Path, name: str) -> Path:
    """Let the copy `name` be the original again, and return where the learner's own lies now.

    `name` may be the beginning of a name, such as "05". Raises `ValueError` if it is not that of one file.
    """
    found = [full for full in sorted(originals) if name and full.startswith(name)]
    if len(found) != 1:
        raise ValueError(f"name={name!r}: must begin the name of one of {', '.join(sorted(originals))}")
    copy = copies / found[0]
    aside = copy.with_suffix(f".old{copy.suffix}")
    if copy.exists():
        copy.replace(aside)
    _copy(originals[found[0]], copy)
    _write(copies / RECORD, _read(copies / RECORD) | {found[0]: _hash(copy)})
    return aside


def _copy(original: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(copy) as file:
        file.write(original.read_bytes())


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read(record: Path) -> dict[str, str]:
    """Return the record. Without one that can be read, every copy counts as changed: nothing is lost."""
    try:
        found = json.loads(record.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _write(record: Path, copied: dict[str, str]) -> None:
    with atomic_write(record) as file:
        file.write(json.dumps(copied, indent=1).encode())
