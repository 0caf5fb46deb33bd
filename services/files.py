"""Remove old files from the output folder.

What to learn here: a job that deletes is the one to distrust most. It stays inside one folder, follows no
symbolic link, only says what it would do until it is told to act, and looks at each file once more right
before removing it.
"""

import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

from services.error_texts import shown
from services.paths import inside, what_is_there
from settings import settings


class CleanupResult(TypedDict):
    """What a cleanup did. Paths are relative to the folder."""

    folder: str
    dry_run: bool
    removed: list[str]  # in a dry run: what would be removed
    bytes: int  # their size
    kept: int  # files that are not old enough
    skipped: dict[str, str]  # what was left alone for another reason, and the reason


def cleanup_files(folder: str | Path, older_than: timedelta, *, dry_run: bool = True) -> CleanupResult:
    """Remove the files in `folder` and below that nobody has written to for `older_than`.

    `folder` is a path in the output folder, `out/` in the data folder; "." is all of it. What lies there
    can be made again. Folders stay, and so do symbolic links and what they point to. With `dry_run`
    nothing is removed. A file that vanishes meanwhile is reported as skipped, one that is written to
    meanwhile counts as kept.

    Raises `ValueError` for a folder that does not exist, lies elsewhere or is a symbolic link, and for an
    age that is not positive.
    """
    if older_than <= timedelta(0):
        raise ValueError(f"older_than={older_than}: must be more than 0; everything is older than 0")
    refused = f"folder={shown(str(folder))}"
    path = inside(settings.out_dir, folder, field="folder")
    if (settings.out_dir / folder).is_symlink():
        raise ValueError(f"{refused}: is a symbolic link; give the folder that it points to")
    if not path.is_dir():
        there = what_is_there(settings.out_dir, path)
        raise ValueError(f"{refused}: no such folder in {settings.out_dir}; {there}")

    result: CleanupResult = {
        "folder": str(path),
        "dry_run": dry_run,
        "removed": [],
        "bytes": 0,
        "kept": 0,
        "skipped": {},
    }

    def unreadable(error: OSError) -> None:
        result["skipped"][str(error.filename)] = str(error.strerror)

    oldest = time.time() - older_than.total_seconds()
    # `fwalk` holds each folder open. So a folder that is swapped for a link meanwhile leads nowhere.
    for where, folders, files, descriptor in os.fwalk(path, onerror=unreadable):
        folders.sort()
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        for name in sorted([*files, *links]):
            relative = os.path.relpath(os.path.join(where, name), path)
            try:
                _consider(result, relative, name, descriptor, oldest)
            except (FileNotFoundError, PermissionError) as error:
                result["skipped"][relative] = str(error.strerror)
    return result


def _consider(result: CleanupResult, relative: str, name: str, folder: int, oldest: float) -> None:
    """Remove the file `name` of the open `folder` if it is older than the moment `oldest`; keep account."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        result["skipped"][relative] = "Not a regular file"
    elif status.st_mtime >= oldest:
        result["kept"] += 1
    else:
        if not result["dry_run"]:
            os.unlink(name, dir_fd=folder)
        result["removed"].append(relative)
        result["bytes"] += status.st_size
