"""A page that searches: a small server over files of features, for the browser of the same machine.

It serves the page, what is found as JSON, a frame of each row, and the videos that the tables name: addresses
hold numbers of files and rows, never paths.
"""

import io
import ipaddress
import mimetypes
import socket
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from data_loader.sampling import frame_at
from data_loader.video import Video, VideoReadError, read_frames
from data_loader.video_files import VIDEO_ENDINGS
from downstream.vector_search.columns import Condition
from downstream.vector_search.queries import Query, QueryMaker, QueryModel
from downstream.vector_search.videos import Hit, VideoIndex
from utils.text import told_apart

PAGE = Path(__file__).parent / "page"
MOST = 200  # hits of a search
FRAME = (320, 240)  # pixels at most
READ_TIMEOUT = 60.0  # seconds for a frame
READING = 4  # videos at once
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Answers those alone who asked for this machine, and adds HEADERS to each answer.

    A page from elsewhere could have its own name lead here (DNS rebinding) and then read what this server
    says; the Host header tells. An address of numbers cannot be such a name.
    """

    def __init__(self, app: ASGIApp, names: Sequence[str]):
        self.app, self.names = app, {"localhost", *names}

    def knows(self, host: str) -> bool:
        name = host.rpartition(":")[0] if ":" in host and not host.endswith("]") else host
        try:
            return bool(ipaddress.ip_address(name.strip("[]")))
        except ValueError:
            return name.lower() in self.names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] += [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            await send(message)

        app = self.app
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not self.knows(hosts[0]):
                app = JSONResponse({"error": "this name is not this server's: use its address"}, 421)
        await app(scope, receive, with_headers)


class Collection:
    """A file of features that the page offers: its index, and what makes queries for it."""

    def __init__(self, file: str, load: Callable[[dict[str, Any]], QueryModel], lock: threading.Lock):
        self.name = file
        self.index, self.metadata = VideoIndex.from_files([file])
        self.queries = QueryMaker(self.index, lambda: load(self.metadata))
        self.lock = lock

    def about(self) -> dict[str, Any]:
        return {
            "name": Path(self.name).name,
            "vectors": len(self.index),
            "videos": self.index.videos,
            "arch": self.metadata.get("arch", ""),
            "columns": list(self.index.parts[0].columns),
        }

    def search(self, text: str, row: str, where: Sequence[str], top: int, one_per_video: bool) -> list[Hit]:
        """The hits for a text, or for what is like a row. Raises ValueError, with words for the page."""
        if not text.strip() and not row:
            raise ValueError("say what to look for")
        with self.lock:
            query: Query = self.queries.row(number(row)) if row else self.queries.text(text)
        allowed = self.index.matching([Condition.parse(one) for one in where], without=query.rows)
        return self.index.search(query.vector[None], top, one_per_video, allowed)[0]


def number(text: str) -> int:
    """A number from 0 on, of a file or row. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ValueError(f"{text[:40]!r} is no number of a row")
    return int(text)


def as_json(hits: Sequence[Hit]) -> list[dict[str, Any]]:
    """What the page shows of hits; names of files that are not UTF-8 with escapes."""
    names = told_apart(hit.path for hit in hits)
    return [
        {
            "row": hit.row,
            "name": names[hit.path].encode(errors="backslashreplace").decode(),
            "path": hit.path.encode(errors="backslashreplace").decode(),
            "times": hit.times,
            "start": hit.start,
            "end": hit.end,
            "similarity": round(hit.similarity, 4),
        }
        for hit in hits
    ]


def frame_of(hit: Hit) -> bytes:
    """The frame in the middle of a hit, as a JPEG. Raises VideoReadError."""

    def middle(video: Video) -> list[int]:
        start, end = hit.start or 0.0, video.duration if hit.end is None else hit.end
        return [frame_at(video.times, (start + end) / 2)]

    frames, _, _ = read_frames(hit.path, middle, timeout=READ_TIMEOUT)
    image = Image.fromarray(frames[0].permute(1, 2, 0).numpy())
    image.thumbnail(FRAME)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return file.getvalue()


def build_app(
    files: Sequence[str], load: Callable[[dict[str, Any]], QueryModel], names: Sequence[str] = ()
) -> Starlette:
    """The server's application.

    Args:
        files: of features, each searched by itself.
        load: gives the model of features with these metadata, when a text is first asked for in them.
        names: by which the machine is called, besides localhost and addresses.

    Raises:
        FileNotFoundError, ValueError: as VideoIndex.from_files.
    """
    embedding = threading.Lock()  # one query at a time
    collections = [Collection(file, load, embedding) for file in files]
    collections[0].queries.model  # noqa: B018  what is wrong with it is said now
    reading = threading.Semaphore(READING)

    def hit_of(request: Request) -> Hit:
        file, row = (number(request.path_params[part]) for part in ("file", "row"))
        if file >= len(collections):
            raise ValueError(f"there is no file {file} of features")
        return collections[file].index.hit(row, 0.0)

    def about(request: Request) -> Response:
        return JSONResponse([collection.about() for collection in collections])

    def search(request: Request) -> Response:
        asked = request.query_params
        file, top = number(asked.get("file", "0")), min(max(1, number(asked.get("top", "24"))), MOST)
        if file >= len(collections):
            raise ValueError(f"there is no file {file} of features")
        where = [text for text in asked.getlist("where") if text.strip()]
        once = asked.get("one_per_video") == "1"
        hits = collections[file].search(asked.get("text", ""), asked.get("row", ""), where, top, once)
        return JSONResponse(as_json(hits))

    def picture(request: Request) -> Response:
        hit = hit_of(request)
        try:
            with reading:
                jpeg = frame_of(hit)
        except VideoReadError as error:
            raise HTTPException(404, f"no picture: {error.reason}") from error
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    def video(request: Request) -> Response:
        path = Path(hit_of(request).path)
        if path.suffix.lower() not in VIDEO_ENDINGS:  # a table from elsewhere could name any file
            raise HTTPException(404, f"{path.name} does not end as videos do, and is not played")
        if not path.is_file():
            raise HTTPException(404, f"{path.name} is not there, or no file of its own")
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        return FileResponse(path, media_type=kind, headers={"cache-control": "private"})

    def page(name: str) -> Callable[[Request], Response]:
        return lambda request: FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

    def told(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return JSONResponse({"error": error.detail}, error.status_code)
        return JSONResponse({"error": str(error)}, 400)

    return Starlette(
        routes=[
            Route("/", page("page.html")),
            Route("/page.js", page("page.js")),
            Route("/page.css", page("page.css")),
            Route("/files", about),
            Route("/search", search),
            Route("/picture/{file}/{row}", picture),
            Route("/video/{file}/{row}", video),
        ],
        middleware=[Middleware(Guard, names=names)],
        exception_handlers=dict.fromkeys((HTTPException, ValueError, OSError, FloatingPointError), told),
    )


def listen(host: str, port: int) -> socket.socket:
    """Raises ValueError: the address cannot be listened at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ValueError(
            f"cannot listen at {host}, port {port} ({error.strerror or error}); name another --port"
        ) from error


def serve(app: Starlette, listening: socket.socket) -> None:
    """Answer until Ctrl-C."""
    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"search at http://{shown}:{port}/ (Ctrl-C ends it)", flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])
