"""Who asks: a browser that has our cookie.

There is no login here, and no account. The cookie is a random number that nobody can guess: who has it sees
the tasks that were sent with it, as with a secret link. The database holds its hash, so whoever reads the
database gets no cookie. For real people put a login in the place of `current_user`; nothing else changes.
"""

import hashlib
import re
import secrets
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, HTTPException, Request, Response

from api.guard import SAFE_METHODS

COOKIE = "learn_celery_user"
BYTES = 32
KEPT = timedelta(days=365)


async def current_user(request: Request, response: Response) -> str:
    """Return the id of who asks. A first request that only reads gets a new cookie.

    Raises `HTTPException` 401 for another request without one: its sender could not ask again for what it
    has sent, and the `Idempotency-Key` of a user whom nobody knows protects from nothing.
    """
    token = request.cookies.get(COOKIE, "")
    if not re.fullmatch(r"[\w-]{43}", token, re.ASCII):
        if request.method not in SAFE_METHODS:
            raise HTTPException(401, f"No cookie {COOKIE}: send GET /tasks first, and keep its cookie")
        token = secrets.token_urlsafe(BYTES)
        response.set_cookie(
            COOKIE,
            token,
            max_age=int(KEPT.total_seconds()),
            httponly=True,  # no script can read it
            samesite="strict",  # no other site can use it
            secure=request.url.scheme == "https",
        )
    return hashlib.sha256(token.encode()).hexdigest()


User = Annotated[str, Depends(current_user)]
