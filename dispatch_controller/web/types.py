"""The types of /api/v1: what is checked on its way in, and what /openapi.json says comes out."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dispatch_controller.core.ids import ID
from dispatch_controller.model import TaskStatus

T = TypeVar("T")

Id = Annotated[str, StringConstraints(pattern=f"^{ID.pattern}$")]
Line = Annotated[str, StringConstraints(max_length=4000)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00\r\n]+$")]


class Answer(BaseModel, Generic[T]):
    ok: Literal[True]
    data: T


class ErrorDetail(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    ok: Literal[False]
    error: ErrorDetail


class Question(BaseModel):
    """A query string, or the body of a request."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class LogLevel(Question):
    """How much is logged from now on."""

    level: Literal["debug", "info", "warning", "error"]


class TaskQuery(Question):
    status: TaskStatus | None = Field(None, description="only those in this state")
    project: Line | None = Field(None, description="only those of this project")
    node: Line | None = Field(None, description="only those on this node")
    q: Line | None = Field(None, description="part of an id, an error or a spec's path")
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=100_000_000)


class EventQuery(Question):
    before: int | None = Field(None, ge=0, le=1 << 62, description="only ids below this one")
    limit: int = Field(100, ge=1, le=1000)


class LogQuery(Question):
    offset: int = Field(0, ge=0, le=1 << 50, description="byte to begin at")
    limit: int = Field(65536, ge=1, le=1024 * 1024, description="bytes at the most")


class FollowQuery(Question):
    offset: int = Field(0, ge=0, le=1 << 50, description="byte to begin at")


class NewTask(Question):
    """A task to create: its spec file is written, then registered."""

    project: Id
    task_id: Id
    title: Annotated[str, StringConstraints(max_length=300, pattern=r"^[^\x00\r\n]*$")] = ""
    body: Annotated[str, StringConstraints(max_length=512 * 1024, pattern=r"^[^\x00]*$")] = Field(
        "", description="Markdown: what is to be done"
    )
    modifies: Annotated[list[Path], Field(max_length=500)] = []
    depends_on: Annotated[
        list[Annotated[str, StringConstraints(max_length=300)]], Field(max_length=500)
    ] = []
    exclusive: bool = False
    priority: Annotated[int, Field(ge=0, le=1000)] | None = None
    estimated_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = None
    timeout_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = None
    max_retries: Annotated[int, Field(ge=0, le=100)] | None = None
    executor: Id | None = None
    verify: Annotated[str, StringConstraints(min_length=1, max_length=4000)] | None = None


class RegisterRequest(Question):
    paths: Annotated[list[Path], Field(min_length=1, max_length=1000)] = Field(
        description="absolute paths on the controller's machine"
    )
    project: Id | None = None


class Nothing(Question):
    """An empty object."""


class ReasonShown(BaseModel):
    """Why a pending task is not running."""

    kind: str
    text: str
    details: dict[str, Any]


class TaskRow(BaseModel):
    """A row of the table tasks."""

    model_config = ConfigDict(extra="allow")

    id: str
    project: str
    spec_file: str
    status: str
    node: str | None
    attempt: int | None
    priority: int | None
    depends_on: list[str]
    modifies: list[str]
    duration_seconds: float | None
    error: str | None
    reason: ReasonShown | None


class TaskPage(BaseModel):
    tasks: list[TaskRow]
    total: int


class EventRow(BaseModel):
    id: int
    timestamp: str
    task_id: str | None
    event_type: str
    node: str | None
    details: dict[str, Any]


class TaskShown(TaskRow):
    events: list[EventRow]


class EventPage(BaseModel):
    events: list[EventRow]
    next: int | None = Field(description="`before` of the next page; null at the end")


class LogShown(BaseModel):
    offset: int
    size: int
    text: str
    alive: bool


class NodeRow(BaseModel):
    """A row of the table nodes, with what it holds and how it is."""

    model_config = ConfigDict(extra="allow")

    name: str
    ssh_host: str | None
    slots: int
    executor: str
    priority: int
    enabled: int
    quarantined: bool
    reachable: bool
    claimed: int
    running: int
    free: int
    last_seen: str | None
    last_error: str | None


class ProjectRow(BaseModel):
    project: str
    tasks: dict[str, int]
    paused: bool
    sync_mode: str | None


class SpecProblem(BaseModel):
    file: str
    line: int
    reason: str


class SpecWarned(BaseModel):
    file: str
    reason: str


class Registration(BaseModel):
    registered: int
    updated: int
    unchanged: int
    documents: int
    errors: list[SpecProblem]
    warnings: list[SpecWarned]
