"""The process around a service: where it listens, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging as python_logging
import signal
import socket

import uvicorn

from mel.config import flag
from mel.interruption import Interrupted, asked, deferred
from mel.serving.service import Service, application
from mel.types import MelError

LOOK_SECONDS = 0.1  # between two looks at whether the process was asked to end
ENDING_SECONDS = 8  # for those who are being answered; less than `mel.interruption` allows
CONNECTIONS = 2048  # a socket may queue


@dataclasses.dataclass(frozen=True)
class AddressConfig:
    """Where a service listens."""

    host: str = flag("127.0.0.1", "Address to listen at; 0.0.0.0 or :: is every one of the machine.")
    port: int = flag(8080, "Port to listen at; 0 is any that is free.")

    def listen(self) -> socket.socket:
        """A socket that listens there.

        Raises:
          MelError: it cannot.
        """
        if not 0 <= self.port < 1 << 16:
            raise MelError(f"--port={self.port} is no port: choose one from 0 to 65535.")
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with contextlib.ExitStack() as undone:
                listening = undone.enter_context(socket.socket(family, kind, protocol))
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind(address)
                listening.listen(CONNECTIONS)
                undone.pop_all()
        except OSError as error:
            raise MelError(
                f"--host={self.host} --port={self.port} cannot be listened at ({error.strerror}): choose another."
            ) from None
        return listening


def serve(service: Service, listening: socket.socket) -> None:
    """Serves until a signal comes; then answers who was let in already.

    Raises:
      Ended: the signal has been obeyed.
    """
    python_logging.getLogger("uvicorn.error").setLevel(python_logging.WARNING)
    config = uvicorn.Config(
        application(service), log_config=None, access_log=False, lifespan="on", server_header=False,
        timeout_graceful_shutdown=ENDING_SECONDS, timeout_keep_alive=15,
    )  # fmt: skip
    try:
        with deferred():
            asyncio.run(_serve(_Server(config), listening))
    except Interrupted as interrupted:
        raise Ended(interrupted.number) from None


class Ended(Interrupted):
    """A service was asked to end, and has."""

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.number).name}; who had been let in was answered."


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        yield  # signals are those of `mel.interruption`


async def _serve(server: uvicorn.Server, listening: socket.socket) -> None:
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    while not serving.done():
        if asked() is not None:
            server.should_exit = True
        await asyncio.sleep(LOOK_SECONDS)
    await serving
