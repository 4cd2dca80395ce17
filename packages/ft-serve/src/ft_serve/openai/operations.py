"""What operators ask: models, health, measurements, version."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from ft_serve.openai.documented import described
from ft_serve.openai.front import State, front_of
from ft_serve.openai.protocol.server import Health, ModelCard, ModelList, Version

router = APIRouter()


@router.get("/v1/models", responses=described(401, 503))
async def models(request: Request) -> ModelList:
    """Return all names that answer."""
    return ModelList(data=front_of(request).card().cards())


@router.get("/v1/models/{model:path}", responses=described(401, 404, 503))
async def model(model: str, request: Request) -> ModelCard:
    """Return one of them."""
    served = front_of(request).card()
    name, _ = served.find(model)
    return next(card for card in served.cards() if card.id == name)


@router.get("/health/live", responses={503: {"model": Health}})
async def live(request: Request) -> Response:
    """Whether the process is worth keeping: 503 once the engine is dead."""
    state = front_of(request).state
    return _health(state, well=state != "dead")


@router.get("/health/ready", responses={503: {"model": Health}})
@router.get("/health", responses={503: {"model": Health}})
async def ready(request: Request) -> Response:
    """Whether requests are taken."""
    state = front_of(request).state
    return _health(state, well=state == "ok")


def _health(state: State, *, well: bool) -> Response:
    body = Health(status=state).model_dump_json()
    return Response(body, 200 if well else 503, media_type="application/json")


@router.get("/metrics", response_class=Response, responses=described(401))
async def metrics(request: Request) -> Response:
    """Return measurements in Prometheus' text format."""
    return Response(
        front_of(request).metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST}
    )


@router.get("/version", responses=described(401, 503))
async def show_version(request: Request) -> Version:
    """Return what runs."""
    return Version(version=version("ft-serve"), engine=front_of(request).card().engine_name)
