"""The systemd unit, of a user or of the whole machine (man systemd.service, systemd.exec)."""

from __future__ import annotations

import getpass
import pwd
from pathlib import Path

from dispatch_controller.home import Home
from dispatch_controller.service.programs import Ran, run_program
from dispatch_controller.service.service import (
    DESCRIPTION,
    OPEN_FILES,
    Service,
    ServiceError,
    Status,
    Tell,
    read_file,
    remove_file,
    write_file,
)

UNIT = "dispatch-controller.service"
START_SECONDS = 120
WATCHDOG_SECONDS = 60
"""An event loop that stands still for this long is ended and started again."""

# Whatever the controller starts on this machine is in its sandbox too: agents need their home, a
# compiler's executable memory, namespaces for tests, and the shared /tmp with its sockets. So what
# is here takes away only what no agent needs.
_HARDENING = """NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
"""
# These need privileges to set up, which a user's own manager has not everywhere.
_SYSTEM_HARDENING = """ProtectSystem=full
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
"""


class Systemd:
    """One unit; `system` puts it into the machine's manager instead of the user's."""

    def __init__(self, service: Service, *, system: bool, folder: Path | None = None) -> None:
        self._service = service
        self._system = system
        usual = "/etc/systemd/system" if system else "~/.config/systemd/user"
        self.file = (folder or Path(usual).expanduser()) / UNIT

    def content(self) -> str:
        service = self._service
        network = "After=network-online.target\nWants=network-online.target\n"
        account = f"User={_owner(service.home)}\n" if self._system else ""
        environment = "".join(
            f"Environment={_quoted(f'{name}={value}', dollar=False)}\n"
            for name, value in service.environment.items()
        )
        return (
            "[Unit]\n"
            f"Description={DESCRIPTION}\n"
            f"{network if self._system else ''}"
            "StartLimitIntervalSec=600\n"
            "StartLimitBurst=10\n"
            "\n"
            "[Service]\n"
            "Type=notify\n"
            "NotifyAccess=main\n"
            f"{account}"
            f"ExecStart={' '.join(_quoted(word) for word in service.argv)}\n"
            f"WorkingDirectory={_escaped(str(service.home))}\n"
            f"{environment}"
            f"TimeoutStartSec={START_SECONDS}\n"
            f"TimeoutStopSec={service.stop_seconds}\n"
            f"WatchdogSec={WATCHDOG_SECONDS}\n"
            "Restart=on-failure\n"
            "RestartSec=5\n"
            "# 75: another controller runs on the home; 78: the settings cannot be used.\n"
            "RestartPreventExitStatus=75 78\n"
            "# Agents on this machine are not ended with the controller, nor it for one of them.\n"
            "KillMode=process\n"
            "OOMPolicy=continue\n"
            f"LimitNOFILE={OPEN_FILES}:524288\n"
            f"{_HARDENING}{_SYSTEM_HARDENING if self._system else ''}"
            "\n"
            "[Install]\n"
            f"WantedBy={'multi-user.target' if self._system else 'default.target'}\n"
        )

    def commands(self) -> list[list[str]]:
        return [
            self._argv("daemon-reload"),
            self._argv("enable", UNIT),
            self._argv("restart", UNIT),
        ]

    def install(self, tell: Tell) -> None:
        self._need_home()
        content = self.content()
        if read_file(self.file) == content and self.status().running:
            tell(f"{UNIT} is installed and running already")
            return
        write_file(self.file, content)
        tell(f"wrote {self.file}")
        for argv in self.commands():
            self._must(argv)
        tell(f"enabled and started {UNIT}")
        if not self._system:
            tell(
                "so that it also runs while you are not logged in: "
                f"loginctl enable-linger {getpass.getuser()}"
            )

    def uninstall(self, tell: Tell) -> None:
        installed = self.file.is_file()
        if installed or self.status().loaded:
            self._must(self._argv("disable", "--now", UNIT))
            tell(f"stopped {UNIT}; what runs on the nodes goes on")
        if remove_file(self.file):
            self._must(self._argv("daemon-reload"))
            tell(f"removed {self.file}")
        elif not installed:
            tell(f"{UNIT} is not installed")

    def restart(self, tell: Tell) -> None:
        if not self.file.is_file():
            raise ServiceError(
                f"there is no {self.file}; install it first: dispatch-controller service install"
            )
        self._must(self._argv("restart", UNIT))
        tell(f"restarted {UNIT}")

    def status(self) -> Status:
        names = "LoadState,ActiveState,SubState,MainPID"
        ran = self._must(self._argv("show", UNIT, f"--property={names}"))
        shown = dict(line.split("=", 1) for line in ran.text.splitlines() if "=" in line)
        active = shown.get("ActiveState", "inactive")
        pid = shown.get("MainPID", "0")
        return Status(
            installed=self.file.is_file(),
            loaded=shown.get("LoadState") == "loaded",
            running=active in ("active", "activating", "reloading"),
            pid=int(pid) if pid.isdigit() and pid != "0" else None,
            state=f"{active} ({shown.get('SubState', 'dead')})",
            file=self.file,
        )

    def _need_home(self) -> None:
        home = Home(self._service.home)
        if not self._system:
            home.prepare()
        elif not home.root.is_dir():
            # Made by root it would be root's, and the service would be too.
            raise ServiceError(
                f"there is no {home.root}: make it as the user who is to run the service, with "
                f"dispatch-controller init, and then name it with --home"
            )

    def _argv(self, *words: str) -> list[str]:
        return ["systemctl", *([] if self._system else ["--user"]), *words]

    def _must(self, argv: list[str]) -> Ran:
        ran = run_program(argv)
        if ran.code:
            raise ServiceError(f"{ran.explain()}. {self._advice(ran)}")
        return ran

    def _advice(self, ran: Ran) -> str:
        if "Failed to connect to" in ran.text and not self._system:
            return (
                "There is no service manager of this user: log in as the user itself (not by su), "
                "or use --system"
            )
        if any(word in ran.text for word in ("denied", "not permitted", "authentication")):
            return "The machine's services are root's: use sudo, or leave --system out"
        option = "" if self._system else "--user "
        logs = f"journalctl {option}-u {UNIT}"
        return f"Look at `{logs}` and {Home(self._service.home).logs}"


def _owner(home: Path) -> str:
    """Return the user whose home folder it is: the controller needs their keys and agents."""
    place = home
    while not place.exists():
        place = place.parent
    return pwd.getpwuid(place.stat().st_uid).pw_name


def _escaped(text: str) -> str:
    """Return text in which systemd sees no specifier."""
    return text.replace("%", "%%")


def _quoted(word: str, *, dollar: bool = True) -> str:
    """Return one word of a unit file's line; `dollar`: the line expands variables."""
    text = _escaped(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text.replace("$", "$$") if dollar else text}"'
