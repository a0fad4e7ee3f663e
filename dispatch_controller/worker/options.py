"""How a worker was started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Options:
    """Checked by the command line (cli/worker.py)."""

    controller: str
    """URL, without a path."""
    node: str
    """The node of nodes.json that this machine serves."""
    slots: int
    work_dir: Path
    """Absolute."""
    token: str | None = None
    """The controller's own; None where it listens to this machine alone."""
    listen: tuple[str, int] | None = None
    """Host and port to be pushed to; None for a worker that polls."""
    log_level: str = "info"

    @property
    def state(self) -> Path:
        """Folder of what this worker keeps for itself."""
        return self.work_dir / ".dispatch" / f"worker-{self.node}"
