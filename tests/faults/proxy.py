"""A cable between controller and node that can be cut: a TCP proxy that drops.

While it is cut nothing passes and nobody is told, as when a machine leaves the network.
"""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress


class Cable:
    """Forwards from `port`, which `open` finds, to a port of this machine."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._whole = threading.Event()
        self._whole.set()
        self._closed = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._closed = True
        self._whole.set()
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while not self._closed:
            if select.select([self._listening], [], [], 0.1)[0]:
                client, _ = self._listening.accept()
                self._start(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        with (
            client,
            suppress(OSError),
            socket.create_connection(("127.0.0.1", self._target)) as server,
        ):
            while not self._closed:
                if not self._whole.wait(0.1):
                    continue
                for end in select.select([client, server], [], [], 0.1)[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    (server if end is client else client).sendall(data)
