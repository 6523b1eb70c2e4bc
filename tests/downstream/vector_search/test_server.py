"""The page that searches, by HTTP and in a real browser, on a server process of its own."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from downstream import feature_extraction
from downstream.feature_files import load_features, write_features
from utils.config import REPOSITORY

from ...extras import extra
from ..browser import Browser, needs_chromium
from ..layouts import h264

extra("starlette")
extra("uvicorn")

ODD = '<script>alert(1)</script> "it\'s" & #1?.mp4'.replace("/", "⁄")


@pytest.fixture(scope="module")
def world(checkpoint, tmp_path_factory) -> Path:
    """Two films of six seconds, whole and in windows; in tables.npz rows that name what is no video."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "films").mkdir()
    h264(folder / "films" / "sea.mp4", 0)
    h264(folder / "films" / ODD, 1)
    fixed = ("--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint), "--num-workers", "0", "-d", "cpu")
    for name, more in {"windows.npz": ["--window", "2"], "whole.safetensors": []}.items():
        given = [str(folder / "films"), "-o", str(folder / name), *more, *fixed]
        assert feature_extraction.main(given) == 0
    table = load_features(folder / "whole.safetensors")
    (folder / "secret").write_text("secret")
    (folder / "broken.mp4").write_bytes(b"no video")
    table.columns["path"] = [str(folder / "secret"), str(folder / "broken.mp4")]
    write_features(folder / "odd.npz", table)
    return folder


@pytest.fixture(scope="module")
def address(world, checkpoint) -> Iterator[tuple[str, int]]:
    files = [str(world / name) for name in ("windows.npz", "whole.safetensors", "odd.npz")]
    fixed = ["--checkpoint", str(checkpoint), "--device", "cpu", "--serve", "--port", "0"]
    command = [sys.executable, str(REPOSITORY / "downstream/search.py"), "--features", *files, *fixed]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        line = server.stdout.readline()
        port = re.fullmatch(r"search at http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)\n", line)[1]
        yield "127.0.0.1", int(port)
        server.send_signal(signal.SIGINT)
        assert server.wait(300) == 130


@pytest.fixture
def get(address):
    def get(target: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(*address, timeout=60)
        connection.putrequest("GET", target, skip_host="host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    return get


def test_it_finds_what_the_command_finds(get, world):
    status, headers, body = get("/search?" + urlencode({"text": "a dog", "top": 3, "where": "start<4"}))
    hits = json.loads(body)
    assert status == 200 and len(hits) == 3 and headers["content-type"] == "application/json"
    assert [hit["similarity"] for hit in hits] == sorted((hit["similarity"] for hit in hits), reverse=True)
    table = load_features(world / "windows.npz")
    for hit in hits:
        assert hit["path"] == table.columns["path"][hit["row"]]
        assert hit["start"] == table.columns["start"][hit["row"]] < 4
    status, _, body = get("/search?" + urlencode({"row": 4, "one_per_video": 1}))
    rows = [hit["row"] for hit in json.loads(body)]
    assert len(rows) == 2 and 4 not in rows
    named = json.loads(get("/files")[2])
    assert [(one["name"], one["vectors"], one["videos"]) for one in named] == [
        ("windows.npz", 6, 2),
        ("whole.safetensors", 2, 2),
        ("odd.npz", 2, 2),
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"text": " "}, "say what to look for"),
        ({"row": 99}, "there is no row 99"),
        ({"row": "-1"}, "is no number"),
        ({"text": "x", "file": 3}, "there is no file 3"),
        ({"text": "x", "where": "lable=3"}, "has no column 'lable'"),
        ({"text": "x", "where": "start"}, "is no condition"),
    ],
)
def test_mistakes_are_told(get, asked, message):
    status, _, body = get("/search?" + urlencode(asked))
    assert status == 400 and message in json.loads(body)["error"]


def test_pictures(get):
    status, headers, body = get("/picture/0/1")
    assert status == 200 and headers["content-type"] == "image/jpeg" and body.startswith(b"\xff\xd8")
    assert get("/picture/0/2")[2] != body
    status, _, body = get("/picture/2/1")
    assert status == 404 and "no picture: " in json.loads(body)["error"]


def test_videos_by_ranges(get, world):
    table = load_features(world / "whole.safetensors")
    for row, path in enumerate(table.columns["path"]):
        whole = Path(path).read_bytes()
        status, headers, body = get(f"/video/1/{row}")
        assert (status, body, headers["content-type"]) == (200, whole, "video/mp4")
        assert headers["accept-ranges"] == "bytes"
        status, headers, body = get(f"/video/1/{row}", range="bytes=100-199")
        assert (status, body) == (206, whole[100:200])
        assert headers["content-range"] == f"bytes 100-199/{len(whole)}"
        assert get(f"/video/1/{row}", range=f"bytes={len(whole)}-")[0] == 416
        assert get(f"/video/1/{row}", range="bytes=-5")[2] == whole[-5:]


@pytest.mark.parametrize(
    "target",
    [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/page.js/../server.py",
        "/video/0/../../secret",
        "/video/0/%2e%2e%2f%2e%2e%2fsecret",
        "/video/0//etc/passwd",
        "/video/0/0/../../../etc/passwd",
        "/picture/0/%2Fetc%2Fpasswd",
        "/video/-1/0",
        "/video/0/99",
        "/video/0/1e3",
        "/video/0/٣",
        "/video/9/0",
        "/video/0/" + "9" * 5000,
    ],
)
def test_nothing_else_is_served(get, target):
    status, _, body = get(target.encode().decode("latin-1") if target.isascii() else "/video/0/%D9%A3")
    assert status in (400, 404) and b"error" in body and b"root:" not in body


def test_a_table_that_names_what_is_no_video(get):
    status, _, body = get("/video/2/0")
    assert status == 404 and "does not end as videos do" in json.loads(body)["error"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:80", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("localhost", 200),
        ("LOCALHOST:9", 200),
        ("127.0.0.1:9", 200),
        ("[::1]:9", 200),
        ("[::1]", 200),
    ],
)
def test_other_names_are_refused(get, host, status):
    for target in ("/", "/files", "/video/0/0"):
        assert get(target, host=host)[0] == status


def test_headers_allow_nothing_from_elsewhere(get):
    for target in ("/", "/page.js", "/files", "/nothing", "/video/0/0"):
        headers = get(target)[1]
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


@pytest.mark.heavy
@needs_chromium
def test_type_see_click_play_and_more_like_this(address, world, tmp_path):
    with Browser(tmp_path / "profile") as page:
        page.open("http://{}:{}/".format(*address))
        page.wait("document.querySelectorAll('#file option').length == 3")
        page.click("#text")
        page.type("a dog runs\r")
        page.wait("document.querySelectorAll('.hit').length == 6")
        page.wait("[...document.images].every(image => image.complete && image.naturalWidth == 64)")
        names = page.value("[...document.querySelectorAll('.name')].map(x => x.textContent)")
        assert sorted(set(names)) == sorted([ODD, "sea.mp4"]) and page.value("document.scripts.length") == 1
        times = page.value("[...document.querySelectorAll('.times')].map(x => x.textContent)")
        late = times.index("0:04–0:06")
        page.click(f".hit:nth-child({late + 1}) .play")
        page.wait("document.querySelector('video').currentTime >= 4")
        page.wait("document.querySelector('video').readyState >= 2")
        assert page.value("document.querySelector('video').duration") == pytest.approx(6, abs=0.2)
        assert "0:04–0:06" in page.value("document.querySelector('#playing').textContent")
        page.click(f".hit:nth-child({late + 1}) .more")
        page.wait("document.querySelectorAll('.hit').length == 5")
        page.choose("#file", 1)
        page.wait("document.querySelectorAll('.hit').length == 2")
        assert "2 vectors of 2 videos, TVTSv2_Demo" in page.value(
            "document.querySelector('#about').textContent"
        )
        page.choose("#file", 2)
        page.wait("document.querySelectorAll('.hit').length == 2")
        page.wait("document.querySelector('#hits').textContent.includes('no picture: ')")
        page.click(".play")
        page.wait("!document.querySelector('#error').hidden")
        page.click("#where")
        page.type("lable=3\r")
        page.wait("document.querySelector('#error').textContent.includes('has no column')")
        assert page.failures == []


@pytest.mark.heavy
def test_a_port_in_use(address, world, checkpoint):
    command = [sys.executable, str(REPOSITORY / "downstream/search.py"), "-f", str(world / "windows.npz")]
    fixed = ["--checkpoint", str(checkpoint), "--device", "cpu", "--serve", "--port", str(address[1])]
    done = subprocess.run([*command, *fixed], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert f"cannot listen at 127.0.0.1, port {address[1]}" in done.stderr
    done = subprocess.run([*command, *fixed, "--top", "3", "--where", "x=1"], capture_output=True, text=True)
    assert done.returncode == 2 and "--serve searches from its page" in done.stderr
