"""What every request passes before it reaches a route, and every response after it.

What to learn here: a server on loopback is not private. Any page in the same browser can send requests to it,
and a name that its author owns can be made to point to 127.0.0.1. So the names under which we are asked are a
fixed list, and what changes something must come from our own page.
"""

import asyncio
import logging
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

SEND_SECONDS = 30  # how long a client of a stream may read nothing, while we have something to say
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

# The page is made of our own files, and nothing that is written into it can run or load anything.
HEADERS = {
    "Cache-Control": "no-store",  # what belongs to one user stays in no cache
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Guard:
    """An ASGI middleware. `hosts` are the names under which this server may be asked."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        is_gone = False

        async def receive_guarded() -> Message:
            nonlocal is_gone
            message = await receive()
            is_gone |= message["type"] == "http.disconnect"
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal is_gone
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *RAW_HEADERS]
            if message.get("more_body"):
                # A client that has stopped reading would keep its stream, and all that feeds it, for ever.
                try:
                    await asyncio.wait_for(send(message), SEND_SECONDS)
                except TimeoutError:
                    is_gone = True
                    log.warning("A client of %s has stopped reading, and is let go.", scope["path"])
                    raise
            else:
                await send(message)

        if scope["type"] == "http" and (refused := self._refusal(scope["method"], Headers(scope=scope))):
            answer = JSONResponse({"detail": refused.detail}, refused.status_code)
            await answer(scope, receive, send_guarded)
            return
        try:
            await self.app(scope, receive_guarded, send_guarded)
        except Exception:
            if not is_gone:  # of a client who has left, FastAPI raises in the midst of an event
                raise

    def _refusal(self, method: str, headers: Headers) -> HTTPException | None:
        host = headers.get("host", "")
        if host.partition(":")[0] not in self.hosts:
            names = " or ".join(self.hosts)
            return HTTPException(400, f"Host={host[:100]!r}: this server is {names}. WEB_HOSTS names others")
        if method in SAFE_METHODS:
            return None
        # Browsers send both, and no page can change them. Other programs send neither.
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if (origin is not None and urlsplit(origin).netloc != host) or site not in ("same-origin", "none"):
            return HTTPException(403, f"Origin={(origin or site)[:100]!r}: another page may not send this")
        return None
