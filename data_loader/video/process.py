"""Reading with a time limit. A decoder stuck in native code obeys no signal, so a child process decodes.

The child is an ordinary subprocess, not one of multiprocessing: loader workers are daemons and may not have
those. It imports numpy and the decoders only, so that it starts fast and stays small. It is kept for the next
video, and started anew after a kill. A decoder that crashes takes the child down and not the training.

Both ends talk JSON over a socket. A request is {"path", "reader", "frame_rate", "span", "limit"}, {"indices",
"limit"} or {"close"}, which has no answer. Answers are {"count", "duration"}, with the times of the frames,
{"shape"}, with the pixels, or {"error", "reason"}. Times and pixels come in a file in memory that both ends
have open: through the socket they would take several times as long.
"""

import atexit
import ctypes
import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .base import FrameCountChanged, Video, VideoReadError, VideoReadTimeout
from .frame_folder import FRAME_RATE
from .readers import open_local
from .sources import absolute

START_LIMIT = 300  # seconds for Python and its imports, which can be slow on a busy network drive
GRACE = 10  # seconds beyond its limit after which the child ends itself, should nobody be left to kill it
BOOT = """
import sys, types
package = types.ModuleType("video")  # this folder, without what its __init__.py imports
package.__path__ = [sys.argv[1]]
sys.modules["video"] = package
from video.process import serve
serve(int(sys.argv[2]), int(sys.argv[3]))
"""


class RemoteVideo(Video):
    """A video that a child process decodes, within `timeout` seconds for opening it and for each reading."""

    def __init__(
        self,
        path: str,
        reader: str,
        timeout: float,
        frame_rate: float = FRAME_RATE,
        span: tuple[float, float] | None = None,
    ):
        self.path, self.reader, self.timeout = path, reader, timeout
        self.child: Child | None = idle_child() or Child()
        try:
            self._exchange(path=absolute(path), reader=reader, frame_rate=frame_rate, span=span)
        except BaseException:
            self.close()
            raise

    def read(self, indices: Sequence[int]) -> np.ndarray:
        answer = self._exchange(indices=list(indices))
        if "count" in answer:
            raise FrameCountChanged
        return self._receive(answer["shape"], np.uint8)

    def close(self) -> None:
        """Gives the child back, for the next video."""
        if self.child is not None:
            self.child.send(close=True)
            _idle.append(self.child)
            self.child = None

    def _exchange(self, **request: object) -> dict[str, Any]:
        """A request and its answer; takes over what the answer tells about the whole video."""
        child = self._decoder()
        try:
            child.send(**request, limit=self.timeout)
            if not child.connection.poll(self.timeout):
                raise TimeoutError
            answer = json.loads(child.connection.recv_bytes())
            if "count" in answer:
                self.times = self._receive([answer["count"]], np.float64)
                self.duration = answer["duration"]
        except TimeoutError as error:
            self._drop()
            reason = f"not read within {self.timeout:g} s, given up (reader {self.reader})"
            raise VideoReadTimeout(self.path, reason) from error
        except (EOFError, ConnectionError) as error:
            status = self._drop(patience=10)
            memory = ": killed, for want of memory?" if status == -signal.SIGKILL else ""
            reason = f"the decoder crashed (exit status {status}, reader {self.reader}){memory}"
            raise VideoReadError(self.path, reason) from error
        except BaseException:  # interrupted half-way through an exchange: the socket is out of step
            self._drop()
            raise
        self.lost = answer.get("lost", self.lost)
        if "error" in answer:
            raise ERRORS[answer["error"]](self.path, answer["reason"])
        return answer

    def _decoder(self) -> "Child":
        if self.child is None:
            raise ValueError("the video is closed")
        return self.child

    def _receive(self, shape: list[int], dtype: type) -> np.ndarray:
        return read_array(self._decoder().pixels.fileno(), shape, dtype)

    def _drop(self, patience: float = 0) -> int:
        """Ends the child, which cannot be used any more, and returns its exit status; see `Child.end`."""
        child, self.child = self._decoder(), None
        return child.end(patience)


ERRORS: dict[str, Callable[[str, str], Exception]] = {
    "unreadable": VideoReadError,
    "import": lambda _, reason: ImportError(reason),
    "memory": lambda *_: MemoryError(),
}


class Child:
    """One decoding process, the socket to it, and the file in memory that the pixels come in."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.connection = Connection(ours.detach())
        self.pixels = array_file()
        with theirs:
            ends = theirs.fileno(), self.pixels.fileno()
            command = [sys.executable, "-P", "-c", BOOT, str(Path(__file__).parent), *map(str, ends)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=ends)
        _children.append(self)
        try:
            if not self.connection.poll(START_LIMIT):
                raise TimeoutError(f"no word within {START_LIMIT} s")
            self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.end()
            raise RuntimeError(f"the process that decodes videos could not start: {error!r}") from error

    def send(self, **message: object) -> None:
        self.connection.send_bytes(json.dumps(message).encode())

    def close(self) -> None:
        """Closes our ends, without ending the process."""
        self.connection.close()
        self.pixels.close()

    def end(self, patience: float = 0) -> int:
        """Ends the process, if it does not within `patience` seconds, and returns its exit status."""
        self.close()
        _children.remove(self)
        if self in _idle:
            _idle.remove(self)
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


_children: list[Child] = []  # of this process
_idle: list[Child] = []  # those of them that have no video open


def idle_child() -> Child | None:
    """One that has no video open and has not died meanwhile."""
    while True:
        try:
            child = _idle.pop()
        except IndexError:
            return None
        if child.process.poll() is None:
            return child
        child.end()


def end_children() -> None:
    """Ends all children of this process."""
    for child in [*_children]:
        child.end()


def _forget() -> None:
    """After a fork: the children are the parent's, and an open socket here would let them outlive it."""
    for child in _children:
        child.close()
    _children.clear()
    _idle.clear()


atexit.register(end_children)
os.register_at_fork(after_in_child=_forget)


# The child's side.


def serve(socket_fd: int, pixels_fd: int) -> None:
    """Answers requests that come in on a socket until the other end closes it."""
    # Both are sent to all processes of a run, and are the parent's to handle.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    video: Video | None = None
    with Connection(socket_fd) as connection, open(os.devnull, "w") as nowhere:
        connection.send_bytes(b"ready")
        while True:
            try:
                request = json.loads(connection.recv_bytes())
                if "close" in request:
                    if video is not None:
                        video.close()
                    video = None
                    continue
                # the timer of faulthandler needs no Python thread: it works while a decoder spins
                faulthandler.dump_traceback_later(request["limit"] + GRACE, exit=True, file=nowhere)
                try:
                    if "path" in request:
                        opening = (request[key] for key in ("path", "reader", "frame_rate", "span"))
                        video = open_local(*opening)
                        answer = _describe(video, pixels_fd)
                    else:
                        assert video is not None, "frames are asked for before a path"
                        answer = _read(video, request["indices"], pixels_fd)
                except VideoReadError as error:
                    answer = {"error": "unreadable", "reason": error.reason}
                except ImportError as error:
                    answer = {"error": "import", "reason": str(error)}
                except MemoryError:
                    answer = {"error": "memory", "reason": ""}
                connection.send_bytes(json.dumps(answer).encode())
            except (EOFError, BrokenPipeError, ConnectionResetError):
                return
            finally:
                faulthandler.cancel_dump_traceback_later()


def _describe(video: Video, pixels_fd: int) -> dict[str, Any]:
    write_array(pixels_fd, np.asarray(video.times, np.float64))
    return {"count": len(video), "duration": video.duration, "lost": video.lost}


def _read(video: Video, indices: Sequence[int], pixels_fd: int) -> dict[str, Any]:
    try:
        frames = video.read(indices)
    except FrameCountChanged:
        return _describe(video, pixels_fd)
    write_array(pixels_fd, frames)
    return {"shape": frames.shape, "lost": video.lost}


def array_file() -> BinaryIO:
    """A nameless file, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("frames"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def write_array(fd: int, array: np.ndarray) -> None:
    """Puts the bytes of an array at the start of a file."""
    rest, at = np.ascontiguousarray(array).data.cast("B"), 0
    while at < len(rest):
        at += os.pwrite(fd, rest[at:], at)


def read_array(fd: int, shape: Sequence[int], dtype: type) -> np.ndarray:
    """The array that `write_array` has put into a file."""
    array: np.ndarray = np.empty(shape, dtype)
    rest, at = array.data.cast("B"), 0
    while at < len(rest):
        size = os.preadv(fd, [rest[at:]], at)
        if size == 0:
            raise EOFError
        at += size
    return array


# Of glibc's malloc.h; and its bounds, in bytes: 32 MiB is the most that it takes for the first.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
KEPT = {M_MMAP_THRESHOLD: 32 * 2**20, M_TRIM_THRESHOLD: 64 * 2**20}


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, up to 64 MiB, for its next clip.

    glibc gives arrays of a few megabytes, such as the frames of a clip, back to the system at once, which
    then maps and clears every page anew: a fifth of the time to read prepared 720p videos. Other libraries of
    C are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in KEPT.items():
            mallopt(option, value)
