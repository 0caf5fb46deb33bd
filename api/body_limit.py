"""How long a request may be. What is too long is refused while it arrives, and never kept in memory.

Starlette has such a middleware. Its answer is no JSON, and names neither the limit nor what to do.
"""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 256 * 1024  # bytes; the longest prompt, each character written as two \uXXXX, has half of it


class BodyLimit:
    """An ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on that is short enough, as far as it says. The others are cut when they exceed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        left = MAX_BODY

        async def receive_limited() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise _too_long()
            return message

        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > MAX_BODY:
            refused = _too_long()
            await JSONResponse({"detail": refused.detail}, 413, refused.headers)(scope, receive, send)
        else:
            await self.app(scope, receive_limited, send)


def _too_long() -> HTTPException:
    # The connection closes: what is still on its way is not read.
    return HTTPException(
        413, f"The request is longer than {MAX_BODY:,} bytes: send less", {"Connection": "close"}
    )
