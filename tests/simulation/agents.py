"""What the agents of a simulation do: most do their work, some do what agents also do."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace

from dispatch_controller.model import RunState, StartOrder
from tests.fakes import Plan

HOPELESS = "hopeless"
"""Part of the id of a task whose agent always fails."""

FROZEN = Plan(seconds=math.inf, moves=frozenset())
PROMPTS = Plan(seconds=math.inf, moves=frozenset(), waiting_input=True, log="Continue? [y/N] ")
SPINS = Plan(seconds=math.inf, moves=frozenset({"cpu"}))
PRINTS = Plan(seconds=math.inf, moves=frozenset({"cpu", "log"}))
SLOW_BUT_ALIVE = Plan(seconds=5400.0, moves=frozenset({"cpu"}))
FORKS = Plan(lingers=900.0)


def failed(reason: str, exit_code: int | None = 1, **more: object) -> Plan:
    plan = Plan(
        state=RunState.FAILED, exit_code=exit_code, reason=reason, error=f"it was {reason}",
        files_changed=0,
    )  # fmt: skip
    return replace(plan, **more)  # type: ignore[arg-type]


FAULTS: tuple[tuple[float, Plan], ...] = (
    (3.0, failed("exit")),
    (1.0, failed("gate:verify")),
    (1.0, failed("exit", 137)),
    (0.5, failed("empty_run", 0)),
    (0.5, failed("rate_limited")),
    (0.5, failed("out_of_memory", 137)),
    (0.5, failed("supervisor_lost", None)),
    (2.0, Plan(vanishes=True)),
    (1.5, FROZEN),
    (1.0, PROMPTS),
    (0.5, SPINS),
    (0.5, PRINTS),
    (1.0, SLOW_BUT_ALIVE),
    (2.0, FORKS),
)
"""Weight and plan."""


@dataclass(frozen=True, slots=True)
class Agents:
    """Decides by seed, task and start alone, so that no order of events changes it."""

    seed: int
    faulty: float
    """Share of attempts that do something else than their work."""
    minutes: float = 12.0
    """Of a usual attempt."""

    def plan(self, order: StartOrder) -> Plan:
        rng = random.Random(f"{self.seed} {order.task_id} {order.sequence}")
        usual = rng.lognormvariate(math.log(self.minutes * 60), 0.8)
        seconds = min(usual, 0.9 * order.timeout)
        if HOPELESS in order.task_id:
            return failed("exit", seconds=seconds)
        if rng.random() >= self.faulty:
            return Plan(seconds=seconds)
        (plan,) = rng.choices([p for _, p in FAULTS], [weight for weight, _ in FAULTS])
        return replace(plan, seconds=seconds) if plan.seconds == Plan().seconds else plan
