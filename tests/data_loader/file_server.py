"""A web server for the files of a folder."""

import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote


class Server(ThreadingHTTPServer):
    """Files of a folder, in ranges or not; counts the bytes that it sends, and breaks connections."""

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.announces, self.lists = True, True  # the length of files, the files of folders
        self.etags = True
        self.folder, self.ranges, self.sent, self.to_break, self.asked = folder, True, 0, 0, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = self.server.folder / unquote(self.path).strip("/")
        if path.is_dir() and self.server.lists:
            names = "".join(f'<a href="{each.name}">{each.name}</a>' for each in sorted(path.iterdir()))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(names)))
            self.end_headers()
            self.wfile.write(names.encode() if body else b"")
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last, asked = 0, len(content) - 1, self.headers.get("Range")
        if asked and self.server.ranges:
            first, last = (int(n) for n in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
        part = content[first : last + 1]
        self.send_response(206 if len(part) < len(content) else 200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        if self.server.announces:
            self.send_header("Content-Length", str(len(part)))
        if self.server.etags:
            self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", formatdate(path.stat().st_mtime, usegmt=True))
        self.end_headers()
        if not body:
            return
        self.server.asked += 1
        if self.server.to_break:
            self.server.to_break -= 1
            part = part[: len(part) // 2]
            self.close_connection = True
        self.wfile.write(part)
        self.server.sent += len(part)

    def log_message(self, *_: object) -> None:
        pass
