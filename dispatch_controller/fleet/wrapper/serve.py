"""`serve`: one channel per node. JSON lines in, JSON lines out; a supervisor forked per task.

Single-threaded. Nothing here waits: what takes long runs in a child of its own, and what is said
goes out when the channel takes it.
"""

from __future__ import annotations

import gc
import json
import os
import selectors
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING

from dispatch_controller.fleet.wrapper import crew, ending, notify, procs
from dispatch_controller.fleet.wrapper.attempt import Refused
from dispatch_controller.fleet.wrapper.clock import now
from dispatch_controller.fleet.wrapper.environment import base_environment
from dispatch_controller.fleet.wrapper.fence import Busy
from dispatch_controller.fleet.wrapper.layout import BadName, checked_name
from dispatch_controller.fleet.wrapper.supervisor import detach
from dispatch_controller.fleet.wrapper.takeover import NoLock, Seat, Superseded
from dispatch_controller.fleet.wrapper.taskdir import encode
from dispatch_controller.fleet.wrapper.verbs import SLOW, BadRequest, Verbs

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from dispatch_controller.fleet.wrapper.launch import Launch

PROTOCOL = 1
_LONGEST_LINE = 64 << 20
_CHUNK = 1 << 18


class _Over(Exception):
    """This `serve` ends: end of file, silence, SIGTERM, or nobody reads."""


class _Start:
    """A start that was decided and not yet answered."""

    def __init__(self, request: int, project: str, folder: str, lease: str) -> None:
        self.request = request
        self.project = project
        self.folder = folder
        self.lease = lease


class Serve:
    """The state of one `serve`, which ends after `idle` seconds without a line."""

    def __init__(self, verbs: Verbs, seat: Seat, idle: float) -> None:
        self._verbs = verbs
        self._seat = seat
        self._idle = idle
        self._selector = selectors.DefaultSelector()
        self._out = bytearray()
        self._writing = False
        self._in = bytearray()
        self._heard = time.monotonic()
        self._starts: dict[int, _Start] = {}
        self._supervisors: dict[int, int] = {}
        self._crew = crew.Crew()
        self._known: dict[tuple[str, str], None] = {}
        self._answers: dict[int, bytearray] = {}
        self._told_in = bytearray()
        self._notified = bytearray()

    def run(self) -> None:
        """Serve until the channel ends."""
        self._listen()
        self._send(self._hello())
        tasks = self._verbs.open_tasks()
        self._known = {(task["project"], task["folder"]): None for task in tasks}
        self._send({"event": "state", "now": now(), "tasks": tasks})
        base_environment()
        gc.collect()
        gc.freeze()  # what is here now is shared with every supervisor, and never touched again
        try:
            self._flush()
            while True:
                self._turn()
        except _Over:
            return

    # -- the loop

    def _listen(self) -> None:
        told, self._tell = os.pipe()
        wake, wake_end = os.pipe()
        for fd in (told, wake, wake_end, 0, 1):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _noted)
        signal.signal(signal.SIGTERM, _over)
        signal.signal(signal.SIGHUP, _over)
        self._watch(0, self._hear)
        self._watch(told, self._hear_supervisor)
        self._watch(notify.listen(self._verbs.layout), self._hear_notice)
        self._watch(wake, self._hear_signal)

    def _watch(self, fd: int, react: Callable[[int], None]) -> None:
        try:
            self._selector.register(fd, selectors.EVENT_READ, react)
        except PermissionError:
            raise _Over from None  # a plain file or /dev/null: nobody is there

    def _turn(self) -> None:
        left = self._heard + self._idle - time.monotonic()
        if left <= 0:
            raise _Over
        ready = self._selector.select(min(left, crew.QUIET) if self._crew else left)
        if not ready:
            self._crew.dismiss()
        for key, _ in ready:
            key.data(key.fd)
        self._flush()

    def _send(self, value: dict[str, Any]) -> None:
        self._out += encode(value) + b"\n"

    def _flush(self, _: int = 1) -> None:
        while self._out:
            try:
                done = os.write(1, self._out[:_CHUNK])
            except BlockingIOError:
                break
            except OSError:
                raise _Over from None
            del self._out[:done]
        if bool(self._out) != self._writing:
            self._writing = bool(self._out)
            if self._writing:
                self._selector.register(1, selectors.EVENT_WRITE, self._flush)
            else:
                self._selector.unregister(1)

    # -- the controller

    def _hear(self, fd: int) -> None:
        try:
            piece = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            raise _Over from None
        if not piece or len(self._in) > _LONGEST_LINE:
            raise _Over
        self._heard = time.monotonic()
        for line in _lines(self._in, piece):
            if line.strip():
                self._request(line)

    def _request(self, line: bytes) -> None:
        try:
            request = json.loads(line)
            number, op = request["id"], request["op"]
        except (ValueError, TypeError, KeyError):
            return  # without an id there is nobody to answer
        try:
            self._do(number, op, request, line)
        except BadRequest as e:
            self._fail(number, "bad_request", str(e))
        except (OSError, Busy) as e:
            self._fail(number, "wrapper_error", f"{type(e).__name__}: {e}")
        except Exception as e:  # noqa: BLE001 - one bad request must not end the channel
            print(traceback.format_exc(), file=sys.stderr, flush=True)
            self._fail(number, "wrapper_error", f"{type(e).__name__}: {e}")

    def _do(self, number: int, op: str, request: dict[str, Any], line: bytes) -> None:
        if op == "start":
            self._start(number, request.get("order"), line)
        elif op == "kill":
            result, follow = self._verbs.kill(request)
            if follow:
                self._fork(lambda: self._verbs.see_through(request))
            self._reply(number, result)
        elif op == "collect":
            tasks = self._verbs.open_tasks(list(self._known))
            self._known = {(task["project"], task["folder"]): None for task in tasks}
            self._reply(number, {"now": now(), "tasks": tasks})
        elif op in SLOW:
            self._answer_in_child(number, op, request)
        else:
            self._reply(number, self._verbs.answer(op, request))

    def _reply(self, number: int, result: dict[str, Any]) -> None:
        self._send({"id": number, "ok": True, "result": result})

    def _fail(self, number: int, code: str, message: str) -> None:
        self._send({"id": number, "ok": False, "error": {"code": code, "message": message}})

    # -- starting

    def _start(self, number: int, order: object, line: bytes) -> None:
        try:
            launch = self._verbs.admit(order, self._seat.is_named)
        except Refused as e:
            self._reply(number, self._verbs.refusal(order, e))
            return
        try:
            pid = self._crew.hand(line, launch, self._seat.fd)
            if pid is None:
                pid = self._fork_supervisor(launch, number)
        except OSError as e:
            refused = Refused("wrapper_error", f"no process can be started: {e}")
            self._reply(number, self._verbs.refusal(order, refused))
            return
        finally:
            os.close(launch.dir_fd)
        o = launch.order
        self._starts[number] = _Start(number, o.project, o.folder, o.lease)
        self._supervisors[pid] = number
        self._known[(o.project, o.folder)] = None

    def _fork_supervisor(self, launch: Launch, number: int) -> int:
        ours, theirs = crew.pair()
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid:
            theirs.close()
            self._crew.join(pid, ours)
            return pid
        status = 1
        try:
            gc.disable()
            detach([launch.dir_fd, self._tell, self._seat.fd, theirs.fileno()])
            crew.work(launch, number, self._tell, self._seat.fd, theirs)
            status = 0
        finally:
            os._exit(status)  # the copy of serve must never run on

    def _fork(self, job: Callable[[], None], keep: list[int] | None = None) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            detach(keep or [])
            job()
        finally:
            os._exit(0)

    def _hear_supervisor(self, fd: int) -> None:
        """[request, outcome, reason, message]: the one word of a supervisor about its start."""
        for line in _lines(self._told_in, _read(fd)):
            number, outcome, reason, message = json.loads(line)
            if outcome == crew.IDLE:
                self._crew.wait(number)
                continue
            start = self._starts.pop(number, None)
            if start is not None:
                self._answer_start(
                    start, Refused(reason, message) if outcome != "running" else None
                )

    def _answer_start(self, start: _Start, refused: Refused | None) -> None:
        if refused is not None:
            named = {"project": start.project, "folder": start.folder}
            self._reply(start.request, self._verbs.refusal(named, refused))
            return
        task = self._verbs.reporter.task(start.project, start.folder, quick=True)
        self._reply(start.request, {"outcome": "running", "task": task})

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._crew.leave(pid)
            number = self._supervisors.pop(pid, None)
            if number in self._starts:
                self._bereaved(self._starts.pop(number))

    def _bereaved(self, start: _Start) -> None:
        """A supervisor ended without its word: what is on disk says whether it had begun."""
        task = self._verbs.reporter.task(start.project, start.folder, quick=True)
        if task is not None and task["lease"] == start.lease:
            self._answer_start(start, None)
        else:
            said = "the supervisor ended before it could start anything; see wrapper.log"
            self._answer_start(start, Refused("wrapper_error", said))

    # -- what happens by itself

    def _hear_signal(self, fd: int) -> None:
        _read(fd)
        for key in list(self._selector.get_map().values()):
            if key.data == self._hear_supervisor:
                self._hear_supervisor(key.fd)  # the word of one that has ended is in the pipe
        self._reap()

    def _hear_notice(self, fd: int) -> None:
        seen = dict.fromkeys(_lines(self._notified, _read(fd)))
        self._verbs.reporter.fresh()
        for line in seen:
            project, _, folder = line.decode(errors="replace").partition("/")
            try:
                key = (checked_name(project, "project"), checked_name(folder, "folder"))
            except BadName:
                continue
            task = self._verbs.reporter.task(*key)
            if task is not None and self._verbs.is_open(task):
                self._known[key] = None
                self._send({"event": "task", "now": now(), "task": task})

    # -- what takes long

    def _answer_in_child(self, number: int, op: str, request: dict[str, Any]) -> None:
        answer, write_end = os.pipe()
        os.set_blocking(answer, False)

        def job() -> None:
            try:
                reply = {"id": number, "ok": True, "result": self._verbs.answer(op, request)}
            except Exception as e:  # noqa: BLE001 - the answer says what went wrong
                code = "bad_request" if isinstance(e, BadRequest) else "wrapper_error"
                error = {"code": code, "message": f"{type(e).__name__}: {e}"}
                reply = {"id": number, "ok": False, "error": error}
            with os.fdopen(write_end, "wb") as file:
                file.write(encode(reply) + b"\n")

        try:
            self._fork(job, [write_end])
        except OSError:
            os.close(answer)
            raise
        finally:
            os.close(write_end)
        self._answers[answer] = bytearray()
        self._watch(answer, lambda fd: self._hear_child(fd, number))

    def _hear_child(self, fd: int, number: int) -> None:
        piece = os.read(fd, _CHUNK)
        if piece:
            self._answers[fd] += piece
            return
        said = self._answers.pop(fd)
        self._selector.unregister(fd)
        os.close(fd)
        if said.endswith(b"\n"):
            self._out += said
        else:
            self._fail(number, "wrapper_error", "the process that was to answer ended early")

    def _hello(self) -> dict[str, Any]:
        return {
            "event": "hello",
            "protocol": PROTOCOL,
            "wrapper": self._verbs.wrapper,
            "owner": self._verbs.layout.owner,
            "pid": os.getpid(),
            "boot_id": procs.boot_id(),
            "python": "{}.{}.{}".format(*sys.version_info[:3]),
            "platform": sys.platform,
        }


def serve(verbs: Verbs, idle: float) -> int:
    """Run the one `serve` of a home. Returns the exit status."""
    verbs.layout.make()
    ending.preload()
    try:
        seat = Seat(verbs.layout)
        seat.take()
    except (Superseded, NoLock) as e:
        print(e, file=sys.stderr, flush=True)
        return 3
    try:
        Serve(verbs, seat, idle).run()
    except _Over:
        return 0
    return 0


def _noted(number: int, frame: FrameType | None) -> None:
    """The wake-up pipe has told already."""


def _over(number: int, frame: FrameType | None) -> None:
    raise _Over


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return b""


def _lines(buffer: bytearray, piece: bytes) -> list[bytes]:
    """Add a piece to a buffer; take the whole lines out of it."""
    buffer += piece
    cut = buffer.rfind(b"\n") + 1
    whole = bytes(buffer[:cut])
    del buffer[:cut]
    return whole.split(b"\n")[:-1]
