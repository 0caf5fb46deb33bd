"""What JupyterLab shows beside the notebooks: a live view of the sandbox that was opened last.

JupyterLab's server loads this module as an extension, see lab/jupyter/config. The page is one answer that
goes on: a picture is added when something has happened. So it needs no second connection, and passes
through the proxies of Codespaces and Binder.
"""

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import url_path_join
from jupyterlab_server.workspaces_handler import WorkspacesManager
from tornado import web
from tornado.iostream import StreamClosedError

from settings import ROOT, settings

WORKSPACE = "learn"
INDEX = "notebooks/README.md"
ADDRESS = "/learn/live"
POLL_SECONDS = 0.5
LONGEST_LINE = 16 * 1024 * 1024  # bytes; a picture of 20 rows has about 30,000

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Live view</title>
<style>
  body { font: 14px/1.5 system-ui, sans-serif; margin: 12px; background: white; color: #1d1d1d }
  h1 { font-size: 15px; margin: 0 0 8px; overflow-wrap: anywhere }
  pre { overflow-x: auto; font-size: 12px }
  .heard { position: absolute; left: -9999px }
  [data-theme="dark"] body { background: #111; color: #ececec; color-scheme: dark }
</style>
<h1 id="title"></h1>
<div id="chart"></div>
<p id="said" class="heard" aria-live="polite"></p>
<details><summary>The same as text</summary><pre id="text" tabindex="0"></pre></details>
<script>
  function put(id, text) {
    const place = document.getElementById(id)
    if (place.textContent !== text) place.textContent = text
  }
  function show(view) {
    put("title", view.title)
    document.getElementById("chart").innerHTML = view.html
    put("text", view.text)
    put("said", view.said)
    document.documentElement.dataset.theme = view.theme
    document.currentScript.remove()
  }
</script>
"""
NOTHING_YET = "Nothing runs yet. Open a notebook, and run its first cells."


def newest_sandbox() -> Path | None:
    """Return the folder of the sandbox that was opened last: of a notebook, or the shared one."""
    opened = {}
    for socket in settings.sandbox_folder.parent.glob(f"{settings.sandbox_folder.name}*/control.sock"):
        try:
            opened[socket.stat().st_mtime_ns] = socket.parent
        except FileNotFoundError:  # it ends at this moment
            continue
    return opened[max(opened)] if opened else None


def theme(user_settings: Path) -> str:
    """Return whether JupyterLab is "dark" or "light". Its frame for help pages does not let a page ask it."""
    try:
        chosen = (user_settings / "@jupyterlab/apputils-extension/themes.jupyterlab-settings").read_text()
    except FileNotFoundError:
        return "light"
    found = re.search(r'"theme": *"([^"]*)"', chosen)  # JSON, with comments
    return "dark" if found and "dark" in found[1].lower() else "light"


def workspace() -> dict[str, Any]:
    """Return the layout of JupyterLab: the index of the notebooks, and the live view beside it."""
    index, live = f"markdownviewer-widget:{INDEX}", f"help-doc:{ADDRESS}"
    areas = [{"type": "tab-area", "currentIndex": 0, "widgets": [widget]} for widget in (index, live)]
    halves = {"type": "split-area", "orientation": "horizontal", "sizes": [0.6, 0.4], "children": areas}
    return {
        "metadata": {"id": WORKSPACE},
        "data": {
            "layout-restorer:data": {"main": {"dock": halves, "current": index}},
            index: {"data": {"path": INDEX, "factory": "Markdown Preview"}},
            live: {"data": {"url": ADDRESS, "text": "Live view"}},
        },
    }


class LiveView(JupyterHandler):
    """The page with the live view."""

    closed = False
    view: dict[str, str]

    def initialize(self, user_settings: Path) -> None:
        """Take over what the handler was registered with: Tornado calls this."""
        self.user_settings = user_settings

    def on_connection_close(self) -> None:
        """Note that nobody looks any more: Tornado calls this."""
        self.closed = True

    @web.authenticated
    async def get(self) -> None:
        """Write the page, and a picture whenever something has happened, until the browser closes it."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.write(PAGE)
        with suppress(StreamClosedError):
            await self._show_all()

    async def _show_all(self) -> None:
        while not self.closed:
            await self._show({"title": "Live view", **dict.fromkeys(("html", "text", "said"), NOTHING_YET)})
            while not self.closed and not (folder := newest_sandbox()):
                await asyncio.sleep(POLL_SECONDS)
            if not self.closed:
                await self._follow(folder, await self._notebook_of(folder))

    async def _follow(self, folder: Path, title: str) -> None:
        """Show what happens in one sandbox, until it ends or another one is opened."""
        async with viewer(folder) as process:
            assert process.stdout
            while not self.closed and newest_sandbox() == folder:
                try:
                    line = await asyncio.wait_for(process.stdout.readline(), POLL_SECONDS)
                except TimeoutError:
                    if theme(self.user_settings) != self.view["theme"]:
                        await self._show(self.view)
                    continue
                if not line:
                    break
                await self._show({"title": title, **json.loads(line)})

    async def _show(self, view: dict[str, str]) -> None:
        self.view = view | {"theme": theme(self.user_settings)}
        as_script = json.dumps(self.view).replace("<", "\\u003c")  # no tag in a picture ends the script
        self.write(f"<script>show({as_script})</script>\n")
        await self.flush()

    async def _notebook_of(self, folder: Path) -> str:
        """Return the name of the notebook whose kernel has opened the sandbox."""
        for session in await self.session_manager.list_sessions():  # type: ignore[no-untyped-call]
            provisioner = self.kernel_manager.get_kernel(session["kernel"]["id"]).provisioner
            details = await provisioner.get_provisioner_info() if provisioner else {}
            if folder.name.endswith(f"-{details.get('pid')}"):
                return Path(session["path"]).name
        return "The shared sandbox: examples, and what you run in a terminal"


@asynccontextmanager
async def viewer(folder: Path) -> AsyncIterator[Process]:
    """Run the program that draws the timeline of a sandbox, for the time of a block."""
    unset = dict.fromkeys(("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "REDIS_URL"), "")
    own = {"SANDBOX_DIR": str(folder)} | unset
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab.jupyter.live"),
        cwd=ROOT,
        env=os.environ | own,
        stdin=PIPE,  # its end tells the program that nobody looks, also when this server is killed
        stdout=PIPE,
        limit=LONGEST_LINE,
    )
    assert process.stdin
    try:
        yield process
    finally:
        process.stdin.close()
        await process.wait()


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "lab.jupyter.extension"}]


def _load_jupyter_server_extension(server: ServerApp) -> None:
    # The name of the workspace and its folder are options of `./learn notebooks`.
    [lab] = server.extension_manager.extension_apps["jupyterlab"]
    WorkspacesManager(lab.workspaces_dir).save(WORKSPACE, json.dumps(workspace()))
    web_app = server.web_app
    address = url_path_join(web_app.settings["base_url"], ADDRESS)
    web_app.add_handlers(".*$", [(address, LiveView, {"user_settings": Path(lab.user_settings_dir)})])  # type: ignore[no-untyped-call]
