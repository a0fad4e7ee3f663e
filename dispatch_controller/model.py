"""The vocabulary: what the parts of the controller say to each other.

Frozen values and enumerations only, standard library only. Field names are those of the
`dispatch.db` columns and of the contracts. Times are Unix seconds (float) unless a field says ISO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class TaskStatus(StrEnum):
    """`tasks.status`, as the schema's CHECK allows."""

    PENDING = "pending"
    CLAIMED = "claimed"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DEADLETTER = "deadletter"


HELD = (TaskStatus.CLAIMED, TaskStatus.RUNNING)
"""States in which a task occupies a slot and its files."""

BACKOFF_OWNER = "backoff:00000000"
"""`lease_owner` of a pending task that must not start before `lease_expires_at`."""


class Cause(StrEnum):
    """Whose fault a failed attempt was. Only TASK, SPEC and UNKNOWN use up a retry."""

    TASK = "task"
    SPEC = "spec"
    EXECUTOR = "executor"
    NODE = "node"
    OPERATOR = "operator"
    UNKNOWN = "unknown"

    @property
    def costs_a_retry(self) -> bool:
        return self in (Cause.TASK, Cause.SPEC, Cause.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Task:
    """A row of `tasks`."""

    id: str
    project: str
    spec_file: str
    spec_hash: str | None
    status: TaskStatus
    node: str | None
    pid: int | None
    attempt: int
    max_retries: int
    started_at: float | None
    completed_at: float | None
    heartbeat_at: float | None
    error: str | None
    log_file: str | None
    duration_seconds: float | None
    depends_on: tuple[str, ...] | None
    """None where the column holds no JSON list of strings: such a task is blocked."""
    modifies: tuple[str, ...]
    exclusive: bool
    priority: int
    lease_owner: str | None
    lease_expires_at: float | None
    visibility_timeout: int
    updated_at: float | None
    estimated_minutes: int
    artifact_patch: str | None = None
    """Where an ended attempt's work was saved: a branch `salvage/…`, or a path on its node."""

    @property
    def holding(self) -> str:
        """What tells this attempt from all others: its lease, or the id where it has none.

        Old programs started tasks without a lease.
        """
        return self.lease_owner or self.id

    def leased(self, now: float) -> bool:
        """Whether a live lease (a back-off among them) keeps schedulers away."""
        return (
            self.lease_owner is not None
            and self.lease_expires_at is not None
            and self.lease_expires_at > now
        )


@dataclass(frozen=True, slots=True)
class Node:
    """A row of `nodes`, with what `node_reputation` says of it."""

    name: str
    ssh_host: str | None
    slots: int
    api_mode: str
    work_dir: str
    running_count: int
    last_seen: float | None
    enabled: bool
    executor: str
    priority: int
    quarantined: bool = False
    quarantine_reason: str | None = None


@dataclass(frozen=True, slots=True)
class SpecExtras:
    """What a spec says that has no column: kept in memory by path and hash of the file."""

    spec_hash: str
    executor: str
    verify: str | None
    timeout_minutes: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A task leased to a node: committed before any machine is touched."""

    task: Task
    node: str
    executor: str
    """The executor that will run: the spec's, or the one it falls back to."""
    lease_owner: str
    attempt: int
    sequence: int
    """Id of the claim's row in `events`; grows over the life of the database."""


@dataclass(frozen=True, slots=True)
class ExecutorMode:
    """One way to reach a model: environment, and variables read from files on the node."""

    api_mode: str
    env: Mapping[str, str] = field(default_factory=dict)
    env_files: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ExecutorCommand:
    """An executor as the wrapper gets it (docs/wrapper-protocol.md, Order)."""

    name: str
    argv: tuple[str, ...]
    stdin: bool = False
    modes: tuple[ExecutorMode, ...] = (ExecutorMode("direct"),)
    rate_limit: str | None = None
    login: str | None = None


@dataclass(frozen=True, slots=True)
class GitSource:
    url: str
    branch: str
    push: str


@dataclass(frozen=True, slots=True)
class StartOrder:
    """Everything a node needs to start one attempt (docs/wrapper-protocol.md, Order)."""

    project: str
    task_id: str
    folder: str
    lease: str
    attempt: int
    sequence: int
    spec: str
    context: str
    timeout: int
    executor: ExecutorCommand
    gates: tuple[str, ...]
    verify: str | None
    modifies: tuple[str, ...]
    write_set: str = "warn"
    git: GitSource | None = None
    code: str = "code"
    resume: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class TaskRef:
    """A started or startable attempt on a node."""

    project: str
    folder: str
    lease: str


class RunState(StrEnum):
    """`status` of status.json, and UNKNOWN for one that cannot be read."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        return self in (RunState.COMPLETED, RunState.FAILED, RunState.TIMEOUT)


@dataclass(frozen=True, slots=True)
class Observation:
    """What a machine that answered said of one task. Times by the controller's clock."""

    node: str
    project: str
    folder: str
    task_id: str | None
    lease: str | None
    attempt: int | None
    state: RunState
    alive: bool
    pid: int | None = None
    exit_code: int | None = None
    reason: str | None = None
    error: str | None = None
    started_at: float | None = None
    completed_at: float | None = None
    heartbeat_at: float | None = None
    cpu_seconds: float | None = None
    log_at: float | None = None
    log_size: int | None = None
    files_at: float | None = None
    waiting_input: bool = False
    log_file: str | None = None
    git_branch: str | None = None
    git_push_ok: bool | None = None
    artifact_hash: str | None = None
    files_changed: int = 0
    loc_added: int = 0
    loc_removed: int = 0
    gates: Mapping[str, str] = field(default_factory=dict)
    outside: tuple[str, ...] = ()
    salvage: str | None = None
    rate_limited_until: float | None = None
    wrapper: str | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """All tasks of this home on one node, as told in one complete answer."""

    node: str
    at: float
    """When the answer came, by the controller's clock."""
    tasks: tuple[Observation, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The node confirmed that the process exists."""

    observation: Observation


@dataclass(frozen=True, slots=True)
class Refused:
    """The node answered, and no process of this lease was started or will be."""

    reason: str
    message: str
    observation: Observation | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """No usable answer: says nothing about the task; to be settled by `void`."""

    message: str


StartOutcome = Started | Refused | Unknown


@dataclass(frozen=True, slots=True)
class Voided:
    """Durably recorded on the node: that lease will never start there."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """That lease was started: running or final."""

    observation: Observation


VoidOutcome = Voided | Adopted


class KillOutcome(StrEnum):
    ENDING = "ending"
    GONE = "gone"
    OTHER_LEASE = "other_lease"


@dataclass(frozen=True, slots=True)
class Probe:
    """How a node is: one round trip."""

    node: str
    at: float
    round_trip: float
    clock_skew: float
    """Node's clock minus ours, seconds."""
    load: tuple[float, float, float] | None = None
    cpus: int | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    disk_total: int | None = None
    disk_free: int | None = None
    wrapper: str | None = None
    python: str | None = None
    git: str | None = None
    boot_id: str | None = None
    agents: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogChunk:
    offset: int
    size: int
    text: str
    alive: bool
