"""`dispatch-controller worker` as a process of its own."""

from __future__ import annotations

import select
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.controller import PROGRAM, environment


@dataclass(slots=True)
class WorkerProcess:
    """One machine's worker; started and ended as often as a test likes."""

    node: str
    folder: Path
    slots: int = 2
    arguments: tuple[str, ...] = ()
    url: str = ""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def work_dir(self) -> Path:
        return self.folder / self.node

    def start(self, controller: str) -> WorkerProcess:
        with (self.folder / f"{self.node}.stderr").open("ab") as complaints:
            self._process = subprocess.Popen(
                [
                    *PROGRAM, "worker", "--controller", controller, "--node", self.node,
                    "--slots", str(self.slots), "--work-dir", str(self.work_dir), *self.arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                env=environment(),
            )  # fmt: skip
        if "--listen" in self.arguments:
            assert self._process.stdout is not None
            ready, _, _ = select.select([self._process.stdout], [], [], 30)
            line = self._process.stdout.readline() if ready else ""
            assert line.startswith("listening on "), self.said()
            self.url = line.removeprefix("listening on ").strip()
        return self

    def stop(self) -> int:
        """Send SIGTERM; return the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with kill -9."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        assert process is not None
        self._process = None
        process.send_signal(number)
        status = process.wait(20)
        if process.stdout is not None:
            process.stdout.close()
        return status

    def close(self) -> None:
        if self._process is not None:
            self._end(signal.SIGTERM)

    def said(self) -> str:
        return (self.folder / f"{self.node}.stderr").read_text()
