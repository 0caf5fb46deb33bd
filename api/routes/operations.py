"""How the whole is, for a load balancer and for Prometheus."""

from fastapi import APIRouter

router = APIRouter(tags=["operations"])
