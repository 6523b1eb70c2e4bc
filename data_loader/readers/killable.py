"""Reading with a time limit. A decoder stuck in native code obeys no signal, so a child process decodes.

Each process keeps one child, started at its first read and started anew after a kill. The child is an
ordinary subprocess, not one of multiprocessing: loader workers are daemons and may not have those. It
imports the decoders only. A decoder that crashes takes the child down and not the training.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import BinaryIO

from .child import read_pixels
from .errors import VideoReadError, VideoReadTimeout
from .frames import Chooser, Clip

START_LIMIT = 300  # seconds for Python and its imports, which can be slow on a busy network drive
BOOT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("readers", sys.argv[1])
sys.modules["readers"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["readers"])
from readers.child import serve
serve(int(sys.argv[2]), int(sys.argv[3]))
"""


class Child:
    """One decoding process, the socket to it, and the file in memory that the pixels come in."""

    def __init__(self):
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.pixels = pixel_file()
        with theirs:
            ends = theirs.fileno(), self.pixels.fileno()
            package = Path(__file__).with_name("__init__.py")
            command = [sys.executable, "-P", "-c", BOOT, str(package), *map(str, ends)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=ends)
        try:
            if not self.connection.poll(START_LIMIT):
                raise TimeoutError(f"no word within {START_LIMIT} s")
            self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.kill()
            raise RuntimeError(f"the process that decodes videos could not start: {error!r}") from error

    def close(self) -> None:
        """Lets go of the child without ending it."""
        self.connection.close()
        self.pixels.close()

    def kill(self) -> None:
        """Ends the process."""
        self.close()
        self.process.kill()
        self.process.wait()

    def exit_status(self) -> int:
        """How the process ended, once its socket says that it has."""
        try:
            return self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def read(self, path: str, choose: Chooser, reader: str, timeout: float) -> Clip:
        """As `readers.read`. Raises TimeoutError, and EOFError when the child has died."""
        deadline = time.monotonic() + timeout
        self._send({"path": path, "reader": reader, "limit": timeout})
        while True:
            if not self.connection.poll(max(0, deadline - time.monotonic())):
                raise TimeoutError
            message = json.loads(self.connection.recv_bytes())
            if "shape" in message:
                frames = read_pixels(self.pixels.fileno(), message["shape"])
                return Clip(frames, message["indices"], message["vlen"])
            if message.get("error") == "unreadable":
                raise VideoReadError(path, message["reason"])
            if message.get("error") == "import":
                raise ImportError(message["reason"])
            self._send([int(i) for i in choose(message["vlen"])])

    def _send(self, message: object) -> None:
        self.connection.send_bytes(json.dumps(message).encode())


def pixel_file() -> BinaryIO:
    """A nameless file, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("frames"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


_child: Child | None = None
_lock = threading.Lock()


def read_killable(path: str, choose: Chooser, reader: str, timeout: float) -> Clip:
    """As `readers.read`, within `timeout` seconds; raises VideoReadError when they are over."""
    global _child
    with _lock:
        if _child is None or _child.process.poll() is not None:
            stop()
            _child = Child()
        try:
            return _child.read(os.path.abspath(path), choose, reader, timeout)
        except (VideoReadError, ImportError):
            raise
        except TimeoutError as error:
            stop()
            raise VideoReadTimeout(
                path, f"not read within {timeout:g} s, given up (reader {reader})"
            ) from error
        except (EOFError, ConnectionError) as error:
            status = _child.exit_status()
            stop()
            raise VideoReadError(
                path, f"the decoder crashed (exit status {status}, reader {reader})"
            ) from error
        except BaseException:
            stop()  # interrupted half-way through an exchange, or `choose` failed: the socket is out of step
            raise


def stop() -> None:
    """Ends this process's child, if there is one."""
    global _child
    if _child is not None:
        _child.kill()
        _child = None


def _forget() -> None:
    """After a fork: the child is the parent's, and an open socket here would let it outlive it."""
    global _child, _lock
    if _child is not None:
        _child.close()
    _child, _lock = None, threading.Lock()


atexit.register(stop)
os.register_at_fork(after_in_child=_forget)
