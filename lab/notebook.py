"""What the notebooks share: a sandbox of their own, and a data folder of their own."""

import os
import shutil
import tempfile
from pathlib import Path

from celery_app import app
from lab.sandbox import Sandbox, connect
from settings import ROOT, settings

SAMPLES = ("orders.csv", "images/badge.png", "images/photo1.jpg", "images/photo2.jpg", "images/photo3.jpg")


def open_sandbox(profile: str = settings.celery_profile) -> Sandbox:
    """Start an empty broker for this notebook alone, point the app to it, and return the sandbox.

    `profile` is what its workers use: reliable, fast or drill (see celery_app.py).
    Workers of other terminals and notebooks do not see its messages, and a Redis of yours stays untouched.
    It ends with `close()`, or with the notebook's kernel.
    Raises `SandboxError` if it does not start.
    """
    folder = settings.sandbox_folder.with_name(f"{settings.sandbox_folder.name}-{os.getpid()}")
    if earlier := connect(folder):  # this cell runs again: begin anew
        earlier.stop()
        earlier.close()
    sandbox = Sandbox(profile=profile, folder=folder)
    sandbox.open()
    os.environ |= {"CELERY_BROKER_URL": "", "CELERY_RESULT_BACKEND": ""}  # Celery prefers them to app.conf
    app.conf.update(broker_url=sandbox.broker.url, result_backend=sandbox.broker.result_backend)
    return sandbox


def own_data(sandbox: Sandbox) -> Path:
    """Make a data folder with the sample files, and a place for an empty database; return the folder.

    This program uses them from now on, and so do workers that start later. Their mail goes to the
    sandbox's own server. All of it ends with the sandbox.
    """
    home = Path(tempfile.mkdtemp(prefix="home-", dir=sandbox.folder))
    data, state = home / "data", home / "state"
    for sample in SAMPLES:
        (data / sample).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "data" / sample, data / sample)
    use_folders(data, state)
    return data


def use_folders(data: Path, state: Path) -> None:
    """Let this program, and workers that start later, use these folders, and the sandbox's mail server."""
    settings.data_dir, settings.state_dir, settings.database_url = data, state, None
    os.environ |= {"DATA_DIR": str(data), "STATE_DIR": str(state), "DATABASE_URL": ""}
    os.environ |= {"SMTP_HOST": "", "SMTP_USER": "", "SMTP_PASSWORD": "", "SMTP_STARTTLS": "false"}
