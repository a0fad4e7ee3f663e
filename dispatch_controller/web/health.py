"""/health, /ready and /metrics."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel
from quart import Blueprint, Response
from quart_schema import document_response, hide, tag_blueprint

from dispatch_controller.web.answers import answer
from dispatch_controller.web.metrics import CONTENT_TYPE
from dispatch_controller.web.parts import parts

blueprint = Blueprint("health", __name__)
tag_blueprint(blueprint, ["health"])


class Health(BaseModel):
    status: Literal["OK", "UNHEALTHY"]
    reasons: list[str]


class Ready(BaseModel):
    ready: bool


@blueprint.get("/health")
@document_response(Health)
@document_response(Health, 503)
async def health() -> Response:
    """Tell whether the controller is well; 503 with the reasons where it is not."""
    reasons = [problem.text for problem in await parts().health.look()]
    status = "UNHEALTHY" if reasons else "OK"
    return answer({"status": status, "reasons": reasons}, 503 if reasons else 200)


@blueprint.get("/ready")
@document_response(Ready)
@document_response(Ready, 503)
async def ready() -> Response:
    """Tell whether requests are taken: 503 once a stop was asked for."""
    stopping = parts().context.stop.is_set()
    return answer({"ready": not stopping}, 503 if stopping else 200)


@blueprint.get("/metrics")
@hide
async def metrics() -> Response:
    """Give the metrics in Prometheus' text format."""
    return Response(await parts().metrics.text(), content_type=CONTENT_TYPE)
