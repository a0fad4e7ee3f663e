"""What the dashboard keeps between requests, hung on the application by `install`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from quart import Response, current_app
from quart_trio import QuartTrio

from dispatch_controller.loops.context import Context
from dispatch_controller.web.overview import Overview
from dispatch_controller.web.parts import parts
from dispatch_controller.web.project_pages import Projects
from dispatch_controller.web.rendering import Pages
from dispatch_controller.web.sessions import Sessions

EXTENSION = "dispatch_controller.dashboard"


@dataclass(frozen=True, slots=True)
class Desk:
    pages: Pages
    overview: Overview
    projects: Projects
    sessions: Sessions
    can_log_out: bool
    """Whether a token is asked for at all."""


def set_up(app: QuartTrio, context: Context, sessions: Sessions) -> None:
    """Hang a new desk on the application."""
    guarded = not context.settings.loopback
    app.extensions[EXTENSION] = Desk(
        pages=Pages(context.run_sync, can_log_out=guarded),
        overview=Overview(context),
        projects=Projects(context),
        sessions=sessions,
        can_log_out=guarded,
    )


def desk() -> Desk:
    """Return the desk of the application that handles the current request."""
    return cast(Desk, current_app.extensions[EXTENSION])


async def show(template: str, at: str, values: dict[str, Any], status: int = 200) -> Response:
    """Return a page; `at` is its entry in the navigation."""
    return await desk().pages.page(template, {"now": parts().now, "at": at, **values}, status)
