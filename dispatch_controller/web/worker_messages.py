"""The messages of /v1, as workers in the field send them (http.md)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Node = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\s/:\x00-\x1f]+$")
]
TaskId = Annotated[str, StringConstraints(min_length=1, max_length=300)]
Lease = Annotated[str, StringConstraints(max_length=200)]
Text = Annotated[str, StringConstraints(max_length=1024 * 1024)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Number = Annotated[float, Field(ge=0, le=1e15)]
Time = Annotated[float, Field(ge=0, le=1e11)] | Annotated[str, StringConstraints(max_length=64)]
"""Unix seconds or ISO 8601."""


class Message(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Running(Message):
    task_id: TaskId
    lease_owner: Lease | None = None
    elapsed: Number | None = None
    timeout: Number | None = None
    task: dict[str, Any] | None = Field(default=None, description="from newer workers: a Task of "
                                        "docs/wrapper-protocol.md")  # fmt: skip


class Heartbeat(Message):
    node_id: Node
    slots_free: Count | None = None
    max_slots: Count | None = None
    cpu: Number | None = None
    mem: Number | None = None
    running_tasks: Annotated[list[Running], Field(max_length=10_000)] | None = None
    worker_url: Annotated[str, StringConstraints(max_length=500)] | None = None
    timestamp: Time | None = None


class Poll(Heartbeat):
    """A heartbeat that asks for tasks."""


class Result(Message):
    """What became of a task, as its worker saw it."""

    ok: bool | None = None
    task_id: str | None = None
    status: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    metrics: dict[str, Any] | None = None
    artifacts: Any = None
    error: str | dict[str, Any] | None = None
    timestamp: Time | None = None
    protocol_version: str | float | None = None


class TaskReport(Message):
    node_id: Node
    task_id: TaskId
    status: Literal["COMPLETED", "FAILED", "TIMEOUT", "PARSE_ERROR"]
    ok: bool | None = None
    result: Text | Result | None = None
    timestamp: Time | None = None
    lease_owner: Lease | None = None
    attempt: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    task: dict[str, Any] | None = Field(default=None, description="from newer workers: a Task of "
                                        "docs/wrapper-protocol.md")  # fmt: skip


class Beaten(BaseModel):
    status: Literal["OK"]
    node_id: str
    kill: list[str] = Field(description="tasks that the worker runs but should not: end them")
    timestamp: str


class Reported(BaseModel):
    status: Literal["OK"]
    task_id: str
    accepted: bool
    reason: str


class Execute(BaseModel):
    """A task to run, as in /v1/execute of a worker."""

    model_config = ConfigDict(extra="allow")

    task_id: str
    command: str
    timeout: int
    cwd: str
    env: dict[str, str]
    lease_owner: str
    spec_content: str
    setup_commands: list[str]


class Polled(BaseModel):
    status: Literal["OK"]
    tasks: list[Execute]


class LoopState(BaseModel):
    cycle: int
    last_ok: str | None
    last_error: str | None
    restarts: int


class StatusBody(BaseModel):
    status: Literal["OK"]
    version: str
    uptime: float
    tasks: dict[str, int]
    loops: dict[str, LoopState]
    nodes: list[dict[str, Any]]
    timestamp: str


class WorkerState(BaseModel):
    node_id: str
    worker_url: str
    slots_free: int | None
    max_slots: int | None
    cpu: float | None
    mem: float | None
    running_tasks: list[Running]
    last_seen: str
    alive: bool


class Workers(BaseModel):
    status: Literal["OK"]
    workers: list[WorkerState]


class Failed(BaseModel):
    error: str
