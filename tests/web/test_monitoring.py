"""The dashboard for Grafana and the alert rules name only metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.web.serving import Serving

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"


def expressions() -> list[str]:
    board = json.loads((MONITORING / "grafana.json").read_text())
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    return [
        *(target["expr"] for panel in board["panels"] for target in panel["targets"]),
        *(rule["expr"] for group in rules["groups"] for rule in group["rules"]),
    ]


def test_every_rule_says_what_to_do() -> None:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("warning", "critical")


async def test_every_metric_they_name_is_served(door: Serving) -> None:
    text = (await door.http.get("/metrics")).text
    served = set()
    for family in text_string_to_metric_families(text):
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        served |= {family.name + suffix for suffix in suffixes.get(family.type, [""])}
    named = {name for one in expressions() for name in re.findall(r"\bdispatch_\w+", one)}
    assert named
    assert named <= served


@pytest.mark.parametrize("expression", expressions())
def test_brackets_of_an_expression_close(expression: str) -> None:
    for opening, closing in ("()", "[]"):
        assert expression.count(opening) == expression.count(closing)
