"""The process that decodes for another one and may be killed at any time (see `killable`).

Both ends talk JSON over a socket. A request is {"path", "reader", "limit"}. The answers, in order:
{"vlen"} for each time frames are to be chosen, to which the other end replies with a list of indices; then
{"error", "reason"}, or {"shape", "indices", "vlen"} with the pixels in a file in memory that both ends have
open (through the socket they would take several times as long).
"""

import faulthandler
import json
import os
import signal
from multiprocessing.connection import Connection

import numpy as np

from . import read
from .errors import VideoReadError
from .memory import keep_freed_memory

GRACE = 10  # seconds beyond its limit after which the child ends itself, should nobody be left to kill it


def serve(socket_fd: int, pixels_fd: int) -> None:
    """Answers requests that come in on a socket until the other end closes it."""
    # Both are sent to all processes of a run, and are the parent's to handle.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    with Connection(socket_fd) as connection, open(os.devnull, "w") as nowhere:
        connection.send_bytes(b"ready")
        while True:
            try:
                request = json.loads(connection.recv_bytes())
                # the timer of faulthandler needs no Python thread: it works while a decoder spins
                faulthandler.dump_traceback_later(request["limit"] + GRACE, exit=True, file=nowhere)
                _answer(connection, pixels_fd, request["path"], request["reader"])
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return
            finally:
                faulthandler.cancel_dump_traceback_later()


def _answer(connection: Connection, pixels_fd: int, path: str, reader: str) -> None:
    def choose(vlen: int) -> list[int]:
        _send(connection, vlen=vlen)
        return json.loads(connection.recv_bytes())

    try:
        clip = read(path, choose, reader)
    except VideoReadError as error:
        _send(connection, error="unreadable", reason=error.reason)
    except ImportError as error:
        _send(connection, error="import", reason=str(error))
    else:
        write_pixels(pixels_fd, clip.frames)
        _send(connection, shape=clip.frames.shape, indices=clip.indices, vlen=clip.vlen)


def write_pixels(fd: int, frames: np.ndarray) -> None:
    """Puts the bytes of an array at the start of a file."""
    rest, at = np.ascontiguousarray(frames).data.cast("B"), 0
    while at < len(rest):
        at += os.pwrite(fd, rest[at:], at)


def read_pixels(fd: int, shape: list[int]) -> np.ndarray:
    """The uint8 array that `write_pixels` has put into a file."""
    frames = np.empty(shape, np.uint8)
    rest, at = frames.data.cast("B"), 0
    while at < len(rest):
        size = os.preadv(fd, [rest[at:]], at)
        if size == 0:
            raise EOFError
        at += size
    return frames


def _send(connection: Connection, **message: object) -> None:
    connection.send_bytes(json.dumps(message).encode())
