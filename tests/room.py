"""Tests run in a sandbox and a state folder of their own, never in the learner's.

pytest loads this module before all others (`-p` in pyproject.toml): the settings must not be read earlier.
"""

import atexit
import os
import shutil
import tempfile

ROOM = tempfile.mkdtemp(prefix="learn-test-")
atexit.register(shutil.rmtree, ROOM, ignore_errors=True)

os.environ |= {
    "SANDBOX_DIR": f"{ROOM}/sandbox",
    "STATE_DIR": f"{ROOM}/state",
    # Empty means unset, and it wins over a line in the learner's .env.
    "CELERY_BROKER_URL": "",
    "CELERY_RESULT_BACKEND": "",
    "CELERY_PROFILE": "reliable",
}
