"""The way to the running controller: HTTP, found by controller.json or --url."""

from __future__ import annotations

import os
import shlex
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from dispatch_controller.cli.exit_codes import ExitCode, Failure
from dispatch_controller.core import ids
from dispatch_controller.home import Home, HomeError, read_controller
from dispatch_controller.settings import Settings, load_settings
from dispatch_controller.settings_sections import is_loopback
from dispatch_controller.settings_sources import absolute, default_home

PAGE = 500
"""Rows asked for at once. An answer may hold fewer; `total` says how many there are."""
PASSES = 3
"""How often a listing is read anew because it changed between its pages."""

JsonData = Any
"""What the API answers; docs/api.md and its own tests hold it to its form."""

_TIMEOUT = httpx.Timeout(60, connect=5)
_PATIENT = httpx.Timeout(None, connect=5)


class Client:
    """Talks to one controller. Every method raises Failure with what to tell the user."""

    def __init__(self, http: httpx.Client, home: Path | None, found: str) -> None:
        self._http = http
        self._home = home
        self._found = found

    def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: Mapping[str, Any] | None = None,
        timeout: httpx.Timeout = _TIMEOUT,
    ) -> httpx.Response:
        """Return the answer, whatever its status. A token is sent when the controller asks."""
        try:
            answer = self._http.request(method, path, params=params, json=json, timeout=timeout)
            if answer.status_code == httpx.codes.UNAUTHORIZED:
                token = load_settings(self._home).api_token
                if token is not None:
                    header = f"Bearer {token.get_secret_value()}"
                    self._http.headers["Authorization"] = header
                    answer = self._http.request(
                        method, path, params=params, json=json, timeout=timeout
                    )
        except httpx.ConnectError as error:
            raise not_running(self._home, f"{self._found} does not answer: {error}") from error
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise Failure(f"{self._found} gave no answer: {what}", ExitCode.NOT_RUNNING) from error
        except UnicodeEncodeError as error:
            raise Failure(f"{ids.shown(error.object)} is not UTF-8", ExitCode.USAGE) from error
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise Failure(
                f"{self._found} wants a token: set DISPATCH_API_TOKEN, or api_token_file in "
                "dispatch.toml, to that of the controller"
            )
        return answer

    def get(self, path: str, **query: str | int | None) -> JsonData:
        """Return `data` of GET /api/v1/<path>; query values that are None are left out."""
        given = {key: value for key, value in query.items() if value is not None}
        return self._data(self.raw("GET", f"/api/v1/{path}", params=given))

    def post(
        self, path: str, body: Mapping[str, Any] | None = None, *, patient: bool = False
    ) -> JsonData:
        """Return `data` of POST /api/v1/<path>; `patient` waits for as long as it takes."""
        # Always a JSON body: state changes need application/json (http.md, "Who gets in").
        timeout = _PATIENT if patient else _TIMEOUT
        answer = self.raw("POST", f"/api/v1/{path}", json=dict(body or {}), timeout=timeout)
        return self._data(answer)

    def status(self) -> dict[str, Any]:
        """Return the body of /v1/status."""
        body = self._json(self.raw("GET", "/v1/status"))
        if body.get("status") != "OK":
            raise Failure(f"{self._found}: {body.get('error', 'answered without a status')}")
        return body

    def tasks(self, **query: str | None) -> list[dict[str, Any]]:
        """Return all tasks that match, over as many pages as it takes, each once.

        A task that changes meanwhile moves the others between pages; so a listing whose total or
        count does not hold is read again.
        """
        rows: dict[str, dict[str, Any]] = {}
        for _ in range(PASSES):
            totals, rows = self._pages(query)
            if len(totals) == 1 and len(rows) == totals.pop():
                break
        return list(rows.values())

    def _pages(self, query: Mapping[str, str | None]) -> tuple[set[int], dict[str, dict[str, Any]]]:
        rows: dict[str, dict[str, Any]] = {}
        totals: set[int] = set()
        offset = 0
        while True:
            page = self.get("tasks", **query, limit=PAGE, offset=offset)
            totals.add(page["total"])
            rows.update({row["id"]: row for row in page["tasks"]})
            offset += len(page["tasks"])
            if not page["tasks"] or offset >= page["total"]:
                return totals, rows

    def _data(self, answer: httpx.Response) -> JsonData:
        body = self._json(answer)
        if body.get("ok") is True:
            return body.get("data")
        error = body.get("error")
        if not isinstance(error, dict):
            raise self._strange(answer)
        raise Failure(str(error.get("message") or error.get("code") or answer.reason_phrase))

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            body = answer.json()
        except ValueError:
            raise self._strange(answer) from None
        if not isinstance(body, dict):
            raise self._strange(answer)
        return body

    def _strange(self, answer: httpx.Response) -> Failure:
        return Failure(
            f"{self._found} answered, but not as a controller does (HTTP {answer.status_code}): "
            "is another program listening there?",
            ExitCode.NOT_RUNNING,
        )


def task_path(task_id: str, *more: str) -> str:
    """Return the path of a task below /api/v1/. Raises Failure where that cannot be an id."""
    wrong = ids.registered_problem(task_id)
    if wrong is not None:
        raise Failure(f"{ids.shown(task_id)} is no task id: {wrong}")
    return "/".join(["tasks", quote(task_id, safe=""), *more])


def node_path(name: str, *more: str) -> str:
    """Return the path of a node below /api/v1/. Raises Failure for what no node is called."""
    # A slash would be read as the path's own, however it is quoted.
    if not name or "/" in name or not _encodable(name):
        raise Failure(f"there is no node {ids.shown(name)}; `dispatch-controller nodes` lists them")
    return "/".join(["nodes", quote(name, safe=""), *more])


def _encodable(text: str) -> bool:
    """Whether `text` is Unicode: an argument that is not UTF-8 comes as surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


@contextmanager
def connect(
    home: Path | None, url: str | None, timeout: httpx.Timeout = _TIMEOUT
) -> Iterator[Client]:
    """Give a client of the controller at `url`, else of the one that runs on the home.

    Raises Failure when none is known to run.
    """
    found = url or _find(home)
    address = httpx.URL(found)
    if address.scheme not in ("http", "https") or not address.host:
        raise Failure(f"--url {found}: write http://HOST:PORT", ExitCode.USAGE)
    local = is_loopback(address.host)
    verify: ssl.SSLContext | bool = True
    if local and address.scheme == "https":
        verify = _own_certificate(load_settings(home))
    # A proxy from the environment must not come between this machine and itself.
    with httpx.Client(
        base_url=address, timeout=timeout, trust_env=not local, verify=verify
    ) as http:
        yield Client(http, home, f"the controller at {found}")


def _own_certificate(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.tls_certificate)
    # The certificate names the machine as others see it; this is the same machine.
    context.check_hostname = False
    return context


def _find(home: Path | None) -> str:
    root = _root(home)
    try:
        controller = read_controller(Home(root))
    except HomeError as error:
        raise Failure(str(error), ExitCode.NOT_RUNNING) from error
    if controller is None:
        raise not_running(home, f"no controller is running on {root}")
    return controller.url


def _root(home: Path | None) -> Path:
    return absolute(home) if home is not None else default_home(os.environ)[0]


def not_running(home: Path | None, what: str) -> Failure:
    """Return the failure that says what was seen and how to start a controller."""
    start = f"dispatch-controller run --home {shlex.quote(str(_root(home)))}"
    return Failure(f"{what}\nstart it with: {start}", ExitCode.NOT_RUNNING)
