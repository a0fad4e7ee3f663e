"""What the handlers work with, hung on the application by `build_application`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from quart import current_app, request

from dispatch_controller.loops.context import Context
from dispatch_controller.loops.factory import Factory
from dispatch_controller.loops.health_check import HealthCheck
from dispatch_controller.loops.operator import Operator
from dispatch_controller.loops.recorder import Recorder
from dispatch_controller.loops.registrar import Registrar
from dispatch_controller.web.auth import Caller
from dispatch_controller.web.intake import CALLER
from dispatch_controller.web.live_logs import LiveLogs
from dispatch_controller.web.metrics import Metrics
from dispatch_controller.web.news import News

EXTENSION = "dispatch_controller"


@dataclass(frozen=True, slots=True)
class Parts:
    context: Context
    recorder: Recorder
    registrar: Registrar
    operator: Operator
    health: HealthCheck
    news: News
    logs: LiveLogs
    metrics: Metrics
    factory: Factory

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.context.clock.wall()


def parts() -> Parts:
    """Return the parts of the application that handles the current request."""
    return cast(Parts, current_app.extensions[EXTENSION])


def caller() -> Caller:
    """Return who makes the current request."""
    return cast(Caller, cast(dict[str, object], request.scope)[CALLER])
