"""Upload a recording, and have it analysed."""

from fastapi import APIRouter

MAX_BYTES = 64 * 1024 * 1024

router = APIRouter(tags=["tasks"])
