"""Templates and assets: read once from the package, rendered in a worker thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from quart import Response

from dispatch_controller import __version__
from dispatch_controller.core import ids
from dispatch_controller.runtime.threads import RunSync
from dispatch_controller.web import words

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of every page: nothing inline, nothing from elsewhere."""

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    content_type: str
    digest: str


class Pages:
    """Turns a template and its values into an answer."""

    def __init__(self, run_sync: RunSync, *, can_log_out: bool) -> None:
        self._run_sync = run_sync
        self.assets = _assets()
        self._environment = Environment(
            loader=PackageLoader("dispatch_controller.web", "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(
            asset=self._asset_url,
            version=__version__,
            can_log_out=can_log_out,
            when=words.when,
            linkable=_linkable,
        )
        self._environment.filters.update(
            span=words.span, size=words.size, count=words.count, shortened=words.shortened
        )

    async def page(self, template: str, values: dict[str, Any], status: int = 200) -> Response:
        """Return a page. A worker thread renders it: a large one takes longer than a step may."""
        text = await self._run_sync(self._environment.get_template(template).render, values)
        # A neighbour's half surrogate must not end the answer.
        body = text.encode("utf-8", "replace")
        response = Response(body, status=status, content_type="text/html; charset=utf-8")
        response.headers["Content-Security-Policy"] = POLICY
        return response

    def _asset_url(self, name: str) -> str:
        return f"/static/{name}?v={self.assets[name].digest}"


def _assets() -> dict[str, Asset]:
    found = {}
    for file in files("dispatch_controller.web").joinpath("static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:12]
            found[file.name] = Asset(content, _TYPES[suffix], digest)
    return found


def _linkable(task_id: str) -> bool:
    """Whether the id may stand in a path: other programs write rows with any id."""
    own, at, project = task_id.partition("@")
    return ids.problem(own) is None and (not at or ids.problem(project) is None)
