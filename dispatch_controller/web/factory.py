"""/api/v1/factory: what it would do, one cycle now, and the drafts that wait for a person."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field
from quart import Blueprint, Response
from quart_schema import tag_blueprint

from dispatch_controller.web import reading
from dispatch_controller.web.answers import ok
from dispatch_controller.web.documented import changes, reads
from dispatch_controller.web.parts import parts
from dispatch_controller.web.types import Id, Nothing, Question

blueprint = Blueprint("factory", __name__, url_prefix="/api/v1/factory")
tag_blueprint(blueprint, ["factory"])


class FactoryQuery(Question):
    project: Id | None = Field(None, description="only this project")


class RunRequest(Question):
    project: Id | None = Field(None, description="only this project")
    dry_run: bool | None = Field(
        None, description="true: make drafts and register nothing, whatever the settings say"
    )


class StepPlan(BaseModel):
    step: str
    wanted: int = Field(description="specs it would ask for; 0: it does nothing")
    why: str


class ProjectPlan(BaseModel):
    project: str
    generator: str
    dry_run: bool
    tasks: dict[str, int]
    made: int = Field(description="specs made in the last 24 hours")
    allowance: int = Field(description="specs that 24 hours may bring")
    failure_rate: float = Field(description="of the last 20 tasks that ended, 0 to 1")
    steps: list[StepPlan]


class ResearchPlan(BaseModel):
    sources: list[str]
    due: str | None = Field(description="ISO 8601; null: with the next cycle")


class Spent(BaseModel):
    tokens: int
    cost: float


class FactoryPlan(BaseModel):
    enabled: bool = Field(description="whether the loop runs")
    pending: int
    min_pending: int
    projects: list[ProjectPlan]
    research: ResearchPlan
    spent: dict[str, Spent] = Field(description="by model generator, in the last 24 hours")


class Done(BaseModel):
    step: str
    project: str | None = None
    generator: str | None = None
    why: str | None = None
    registered: list[str] = Field([], description="ids of new tasks")
    drafts: list[str] = Field([], description="ids of drafts that wait for approval")
    rejected: list[str] = Field([], description="ids of drafts that did not pass the checks")
    repeated: list[str] = Field([], description="evidence keys that were used before")
    failed: str | None = Field(None, description="why the generator gave nothing")
    new: int | None = Field(None, description="new items that research found")


class DraftRow(BaseModel):
    id: str
    project: str
    state: Literal["held", "rejected"]
    reason: str
    generator: str
    generation: int
    at: str
    evidence: list[str]
    file: str
    text: str


class Approved(BaseModel):
    task_id: str


class Dropped(BaseModel):
    id: str


@blueprint.get("")
@reads(FactoryPlan, query=FactoryQuery)
async def plan() -> Response:
    """Tell what a cycle would do now for each project, and why. Asks no generator."""
    return ok(await parts().factory.plan(reading.query(FactoryQuery).project))


@blueprint.post("/run")
@changes(list[Done], RunRequest, 404)
async def run() -> Response:
    """Do one cycle now, also when the loop is off; answers when it is done."""
    asked = await reading.body(RunRequest)
    done = await parts().factory.run_once(asked.project, dry_run=asked.dry_run)
    return ok([Done.model_validate(one).model_dump(mode="json") for one in done])


@blueprint.get("/drafts")
@reads(list[DraftRow], query=FactoryQuery)
async def drafts() -> Response:
    """List the drafts with their texts, by project and id."""
    return ok(await parts().factory.drafts(reading.query(FactoryQuery).project))


@blueprint.post("/drafts/<project>/<draft>/approve")
@changes(Approved, Nothing, 404, 409)
async def approve(project: str, draft: str) -> Response:
    """Register a draft, as its file is now."""
    names = await _names(project, draft)
    return ok({"task_id": await parts().factory.approve(*names)})


@blueprint.post("/drafts/<project>/<draft>/drop")
@changes(Dropped, Nothing, 404)
async def drop(project: str, draft: str) -> Response:
    """Drop a draft for good: its evidence is not asked for again."""
    names = await _names(project, draft)
    await parts().factory.drop(*names)
    answer: dict[str, Any] = {"id": draft}
    return ok(answer)


async def _names(project: str, draft: str) -> tuple[str, str]:
    await reading.body(Nothing)
    return reading.project_name(project), reading.task_id(draft)
