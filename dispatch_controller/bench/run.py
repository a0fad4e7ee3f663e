"""Runs the measurements and prints what they found."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

from rich.console import Console

from dispatch_controller.bench import commits, fleet, latency, passes, throughput
from dispatch_controller.bench.figure import Figure

MEASUREMENTS: dict[str, Callable[[], list[Figure]]] = {
    "commits": commits.measure,
    "passes": passes.measure,
    "fleet": fleet.measure,
    "latency": latency.measure,
    "throughput": throughput.measure,
}


def run(names: Sequence[str], console: Console | None = None) -> int:
    """Run the named measurements (all, where none is named); return 1 if one misses its mark."""
    console = console or Console(highlight=False)
    console.print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}")
    missed = False
    for name in names or MEASUREMENTS:
        console.print(f"\n[bold]{name}[/]")
        for figure in MEASUREMENTS[name]():
            mark = {None: " ", True: "[green]✓[/]", False: "[red]✗[/]"}[figure.kept]
            wanted = f" (wanted: {figure.wanted})" if figure.wanted else ""
            console.print(f"{mark} {figure.name}: {figure.value}{wanted}", soft_wrap=True)
            missed |= figure.kept is False
    return 1 if missed else 0
