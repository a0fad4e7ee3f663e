"""The launchd agent (man launchd.plist, man launchctl)."""

from __future__ import annotations

import plistlib
import re
import time
from collections.abc import Callable
from pathlib import Path

from dispatch_controller.home import Home
from dispatch_controller.service import former
from dispatch_controller.service.programs import Ran, run_program
from dispatch_controller.service.service import (
    OPEN_FILES,
    Service,
    ServiceError,
    Status,
    Tell,
    read_file,
    remove_file,
    write_file,
)

LABEL = "com.oyster.dispatch-controller"
THROTTLE = 30
"""Seconds between two starts: a setting that cannot be used must not become a storm."""

# launchctl's exit codes (`launchctl error`): what a second call of the same meets.
_NOT_LOADED = (3, 113)
_IN_PROGRESS = 36
_ALREADY_LOADED = (5, 17, 37)


class Launchd:
    """A user's launchd agent, in the domain of their login."""

    def __init__(
        self,
        service: Service,
        *,
        uid: int,
        folder: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._service = service
        self._uid = uid
        self._domain = f"gui/{uid}"
        self._target = f"{self._domain}/{LABEL}"
        self._folder = folder or Path("~/Library/LaunchAgents").expanduser()
        self._sleep = sleep
        self.file = self._folder / f"{LABEL}.plist"

    def content(self) -> str:
        service = self._service
        log = str(Home(service.home).logs / "service.log")
        return plistlib.dumps(
            {
                "Label": LABEL,
                "ProgramArguments": list(service.argv),
                "EnvironmentVariables": dict(service.environment),
                "WorkingDirectory": str(service.home),
                "RunAtLoad": True,
                # A clean stop stays stopped; a crash is started again.
                "KeepAlive": {"SuccessfulExit": False},
                "ThrottleInterval": THROTTLE,
                "ExitTimeOut": service.stop_seconds,
                # Agents on this machine are not ended with the controller.
                "AbandonProcessGroup": True,
                # The default slows CPU and disk down, also of the agents that are started here.
                "ProcessType": "Interactive",
                "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
                "StandardOutPath": log,
                "StandardErrorPath": log,
            }
        ).decode()

    def commands(self) -> list[list[str]]:
        old = [f"{self._domain}/{label}" for label in former.LABELS]
        return [
            *(["launchctl", verb, target] for target in old for verb in ("disable", "bootout")),
            ["launchctl", "enable", self._target],
            ["launchctl", "bootstrap", self._domain, str(self.file)],
        ]

    def install(self, tell: Tell) -> None:
        """Unload the three former services, then write and load ours."""
        self._unload_former(tell)
        content = self.content()
        loaded = self._loaded(LABEL)
        if loaded and read_file(self.file) == content:
            tell(f"{LABEL} is installed and loaded already")
            return
        Home(self._service.home).prepare()
        write_file(self.file, content)
        tell(f"wrote {self.file}")
        if loaded:
            self._bootout(self._target)
        self._load()
        tell(f"loaded {LABEL}")

    def uninstall(self, tell: Tell) -> None:
        """Unload and remove ours; say how to load the former services again."""
        loaded = self._loaded(LABEL)
        if loaded:
            self._bootout(self._target)
            tell(f"unloaded {LABEL}; what runs on the nodes goes on")
        if remove_file(self.file):
            tell(f"removed {self.file}")
        elif not loaded:
            tell(f"{LABEL} is not installed")
        for label, path in former.files(self._folder):
            tell(f"to load {label} again: {former.load_again(self._uid, label, path)}")

    def restart(self, tell: Tell) -> None:
        """Stop it in its own time, and start it with the file as it is now."""
        if not self.file.is_file():
            raise ServiceError(_not_installed(self.file))
        if self._loaded(LABEL):
            # `kickstart -k` would not wait for the grace.
            self._bootout(self._target)
        self._load()
        tell(f"restarted {LABEL}")

    def status(self) -> Status:
        seen = run_program(["launchctl", "print", self._target])
        state = re.search(r"^\s*state = (.+)$", seen.text, re.MULTILINE)
        pid = re.search(r"^\s*pid = (\d+)$", seen.text, re.MULTILINE)
        loaded = seen.code == 0
        return Status(
            installed=self.file.is_file(),
            loaded=loaded,
            running=loaded and pid is not None,
            pid=int(pid[1]) if loaded and pid else None,
            state=(state[1].strip() if state else "loaded") if loaded else "not loaded",
            file=self.file,
        )

    def _unload_former(self, tell: Tell) -> None:
        there = former.loaded(self._uid)
        for service in there:
            self._must(["launchctl", "disable", service.target], service.unload)
            self._bootout(service.target, service.unload)
            tell(f"unloaded {service.label} ({service.domain}), which this controller replaces")
        for label, path in former.files(self._folder):
            if label not in {service.label for service in there}:
                # Else the next login would load it again.
                target = f"{self._domain}/{label}"
                self._must(["launchctl", "disable", target], f"launchctl disable {target}")
            tell(f"kept {path}; it is disabled")

    def _load(self) -> None:
        self._must(["launchctl", "enable", self._target], f"launchctl enable {self._target}")
        ran = run_program(["launchctl", "bootstrap", self._domain, str(self.file)])
        if ran.code and not (ran.code in _ALREADY_LOADED and self._loaded(LABEL)):
            raise ServiceError(
                f"{ran.explain()}. Log in at the machine's own screen (launchd keeps agents of "
                f"logged-in users only), look at {self.file}, and install again"
            )

    def _bootout(self, target: str, by_hand: str | None = None) -> None:
        """Unload a service and wait until it has ended; one that is not loaded is fine."""
        ran = run_program(["launchctl", "bootout", target])
        if ran.code and ran.code not in (*_NOT_LOADED, _IN_PROGRESS):
            raise ServiceError(_by_hand(ran, by_hand or f"launchctl bootout {target}"))
        for _ in range(2 * (self._service.stop_seconds + 5)):
            if run_program(["launchctl", "print", target]).code:
                return
            self._sleep(0.5)
        raise ServiceError(f"{target} does not end; look at `launchctl print {target}`")

    def _loaded(self, label: str) -> bool:
        return run_program(["launchctl", "print", f"{self._domain}/{label}"]).code == 0

    def _must(self, argv: list[str], by_hand: str) -> None:
        ran = run_program(argv)
        if ran.code and ran.code not in _NOT_LOADED:
            raise ServiceError(_by_hand(ran, by_hand))


def _by_hand(ran: Ran, command: str) -> str:
    return f"{ran.explain()}. Do it by hand, then try again: {command}"


def _not_installed(file: Path) -> str:
    return f"there is no {file}; install it first: dispatch-controller service install"
