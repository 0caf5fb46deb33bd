"""Draw docs/tour.svg: the beginning of what `./learn` prints, recorded from a real run.

python docs/make_tour_picture.py
"""

import io
import os
import re
import socket
import subprocess
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "tour.svg"
COLUMNS = 100
LINES = 12
HOME = "~/learn-celery"


def record() -> str:
    """Run the tour in a sandbox of its own and return what it prints, with its colours."""
    with tempfile.TemporaryDirectory() as room:
        own = {
            "SANDBOX_DIR": f"{room}/sandbox",
            "STATE_DIR": f"{room}/.state",
            "DATABASE_URL": "",
            "SMTP_HOST": "",
            "CELERY_BROKER_URL": "",
            "CELERY_RESULT_BACKEND": "",
            "FORCE_COLOR": "1",
        }
        environment = os.environ | own
        run = subprocess.run(
            [ROOT / "learn", "--no-pause"], env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    # The picture does not tell on which machine it was drawn.
    text = run.stdout
    for own, shown in ((room, HOME), (str(ROOT), HOME), (f"@{socket.gethostname()}", "@laptop")):
        text = text.replace(own, shown)
    return text


def main() -> None:
    """Write the picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), highlight=False)
    console.print("[bold]$[/] ./learn")
    console.print(Text.from_ansi("\n".join([*record().splitlines()[:LINES], "…"])))
    svg = console.export_svg(title="Learn Celery")
    # Rich links a font on the web. A picture in a README loads nothing: it uses the reader's own font.
    PICTURE.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
