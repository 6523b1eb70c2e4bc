"""The downloads, from a local server that answers as Google Drive, OpenAI's store and the hub do.

gdown and huggingface_hub are the real ones; what they send to the net is handed to the local server.
"""

import hashlib
import http.server
import re
import resource
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import huggingface_hub
import pytest
import requests

import CLIP.weights
from model import download as module
from model.download import RELEASED, SOURCES, DownloadError, download, main, unpack_lists
from utils.config import REPOSITORY
from utils.errors import RunError

WEIGHTS = b"\x80" + bytes(range(256)) * 40_000  # 10 MB that begin as a pickle does
DRIVE_ID = RELEASED["TVTSv2_B_16"][1]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Net:
    """What the servers of the world hold: host and path -> content; and what they were asked for."""

    files: dict[str, bytes] = field(default_factory=dict)
    pages: dict[str, tuple[int, str]] = field(default_factory=dict)  # answers that are no files
    moved: dict[str, str] = field(default_factory=dict)  # redirected, with the headers of a file
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, address, Range
    resumes: bool = True  # whether a Range is answered with the rest
    cut_after: list[int] = field(default_factory=list)  # bytes after which the next connections break
    linked_etag: str | None = None
    address: str = ""

    def ranges(self) -> list[str]:
        return [wanted for _, _, wanted in self.asked if wanted]


@pytest.fixture
def net(monkeypatch) -> Iterator[Net]:
    net = Net()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            address = self.path.lstrip("/")
            wanted = self.headers.get("Range", "")
            net.asked.append((self.command, address, wanted))
            if address in net.pages:
                status, text = net.pages[address]
                return self.answer(status, {"Content-Type": "text/html"}, text.encode())
            if address not in net.files and address not in net.moved:
                return self.answer(404, {"Content-Type": "text/html"}, b"<html>not found</html>")
            content = net.files.get(address, b"")
            name = address.rpartition("/")[2]
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{name}"',
                "Accept-Ranges": "bytes",
                "ETag": f'"{sha256(content)[:32]}"',
                "X-Repo-Commit": "c" * 40,
            }
            if net.linked_etag:
                headers["X-Linked-Etag"] = f'"{net.linked_etag}"'
            if address in net.moved:
                return self.answer(302, headers | {"Location": net.moved[address]}, b"")
            if not net.resumes:
                wanted = ""
            start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
            if start >= len(content):
                return self.answer(416, {"Content-Type": "text/html"}, b"")
            if wanted:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            return self.answer(206 if wanted else 200, headers, content[start:])

        def answer(self, status, headers, body):
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            if net.cut_after and body and "octet" in headers["Content-Type"]:
                body = body[: net.cut_after.pop(0)]
                self.close_connection = True
            try:
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True  # gdown reads no more than the head of an answer to be resumed

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    net.address = f"http://127.0.0.1:{server.server_port}"

    class ToServer(requests.adapters.HTTPAdapter):
        def send(self, request, **options):
            asked = request.url
            if not asked.startswith(net.address):
                request.url = re.sub("^https:/", net.address, asked)
            response = super().send(request, **options)
            response.url = asked
            return response

    monkeypatch.setattr(requests.Session, "get_adapter", lambda self, url: ToServer())
    template = f"{net.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", net.address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the libraries' attempts
    yield net
    server.shutdown()
    server.server_close()


def on_drive(net: Net, key: str, content: bytes) -> str:
    """A file large enough for Google Drive to ask first; returns the address it has in the end."""
    address = f"drive.usercontent.google.com/download?id={key}&export=download&confirm=t&uuid=1-2"
    fields = dict(part.split("=") for part in address.split("?")[1].split("&"))
    inputs = "".join(f'<input type="hidden" name="{name}" value="{value}">' for name, value in fields.items())
    net.pages[f"drive.google.com/uc?id={key}"] = (
        200,
        "<html><p>Google Drive can't scan this file for viruses.</p><form id='download-form' "
        f"action='https://drive.usercontent.google.com/download' method='get'>{inputs}</form></html>",
    )
    net.files[address] = content
    return address


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_released_checkpoint_comes_from_google_drive(net, tmp_path, capsys):
    on_drive(net, DRIVE_ID, WEIGHTS)
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 0
    assert left(tmp_path) == ["TVTSv2_ViT_B_16.pth"]
    assert (tmp_path / "TVTSv2_ViT_B_16.pth").read_bytes() == WEIGHTS
    said = capsys.readouterr()
    assert f"{tmp_path}/TVTSv2_ViT_B_16.pth, SHA-256 {sha256(WEIGHTS)} (none is published)" in said.out
    assert "10.2M/10.2M" in said.err  # progress

    net.files.clear()
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 0
    assert f"is there already, SHA-256 {sha256(WEIGHTS)}\n" in capsys.readouterr().out


def test_a_broken_connection_is_taken_up_again_where_it_broke(net, tmp_path):
    on_drive(net, DRIVE_ID, WEIGHTS)
    net.cut_after = [3_000_000]
    download("TVTSv2_B_16", tmp_path)
    assert (tmp_path / "TVTSv2_ViT_B_16.pth").read_bytes() == WEIGHTS
    (resumed,) = net.ranges()
    assert 0 < int(resumed.removeprefix("bytes=").removesuffix("-")) <= 3_000_000


def test_the_next_command_goes_on_from_what_has_come(net, tmp_path, capsys):
    on_drive(net, DRIVE_ID, WEIGHTS)
    net.cut_after = [3_000_000] + [0] * 20
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 1
    assert not (tmp_path / "TVTSv2_ViT_B_16.pth").exists()
    said = capsys.readouterr().err
    assert (
        "TVTSv2_B_16 could not be downloaded" in said and f"what has come into {tmp_path}/.download" in said
    )
    (part,) = tmp_path.rglob("*.part")
    size = part.stat().st_size
    assert 0 < size <= 3_000_000

    net.cut_after.clear()
    net.asked.clear()
    download("TVTSv2_B_16", tmp_path)
    assert net.ranges() == [f"bytes={size}-"]
    assert (tmp_path / "TVTSv2_ViT_B_16.pth").read_bytes() == WEIGHTS
    assert left(tmp_path) == ["TVTSv2_ViT_B_16.pth"]


@pytest.mark.parametrize("resumes", [True, False])
def test_what_cannot_be_gone_on_with_is_fetched_afresh(net, tmp_path, resumes):
    on_drive(net, DRIVE_ID, WEIGHTS)
    part = tmp_path / ".download/TVTSv2_B_16/fileabcd1234.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(WEIGHTS if resumes else WEIGHTS[:1000])  # whole: killed before it got its name
    net.resumes = resumes
    download("TVTSv2_B_16", tmp_path)
    assert (tmp_path / "TVTSv2_ViT_B_16.pth").read_bytes() == WEIGHTS
    assert left(tmp_path) == ["TVTSv2_ViT_B_16.pth"]


def test_googles_quota_page_is_said_with_the_address_and_the_place(net, tmp_path, capsys):
    words = "Too many users have viewed or downloaded this file recently. Please try again later."
    net.pages[f"drive.google.com/uc?id={DRIVE_ID}"] = (
        200,
        f'<html><p class="uc-error-caption">Sorry</p><p class="uc-error-subcaption">{words}</p></html>',
    )
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert f"could not be downloaded: {words}\n" in said
    assert f"open https://drive.google.com/file/d/{DRIVE_ID}/view in a browser" in said
    assert f"put it at {tmp_path}/TVTSv2_ViT_B_16.pth\n" in said
    assert list(tmp_path.iterdir()) == []


def test_without_a_connection_the_address_and_the_place_are_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    for proxy in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    assert main(["ViT-B-16", "TVTSv2_H_14", "--folder", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "ViT-B-16 could not be downloaded: no connection to openaipublic.azureedge.net (" in said
    assert "TVTSv2_H_14 could not be downloaded: no connection to drive.google.com (" in said
    assert f"open {CLIP.weights.SOURCES['ViT-B-16.pt']} in a browser" in said
    assert list(tmp_path.iterdir()) == []


def test_a_page_in_place_of_a_checkpoint_is_refused(net, tmp_path):
    on_drive(net, DRIVE_ID, b"<html>sign in to this network</html>")
    with pytest.raises(DownloadError, match="neither weights nor an archive, it begins with b'<html>sign in"):
        download("TVTSv2_B_16", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def clip(net, monkeypatch) -> bytes:
    """A ViT-B-32.pt on OpenAI's store, under its hash, as they all are."""
    content = WEIGHTS[:500_000]
    address = f"openaipublic.azureedge.net/clip/models/{sha256(content)}/ViT-B-32.pt"
    net.files[address] = content
    monkeypatch.setitem(SOURCES, "ViT-B-32", module._of_clip("ViT-B-32.pt", f"https://{address}"))
    return content


def test_a_clip_file_is_checked_against_the_hash_in_its_address(net, clip, tmp_path, capsys):
    assert main(["ViT-B-32", "--folder", str(tmp_path)]) == 0
    assert (tmp_path / "ViT-B-32.pt").read_bytes() == clip
    assert f"SHA-256 {sha256(clip)} (as published)" in capsys.readouterr().out
    assert main(["ViT-B-32", "--folder", str(tmp_path)]) == 0
    assert "is there already" in capsys.readouterr().out

    (tmp_path / "ViT-B-32.pt").write_bytes(b"another")
    assert main(["ViT-B-32", "--folder", str(tmp_path)]) == 1
    assert "is not the published file" in capsys.readouterr().err
    assert main(["ViT-B-32", "--folder", str(tmp_path), "--overwrite"]) == 0
    assert (tmp_path / "ViT-B-32.pt").read_bytes() == clip


def test_a_clip_file_of_another_hash_never_gets_into_its_place(net, clip, tmp_path, capsys):
    (address,) = net.files
    net.files[address] = clip[:-1] + b"x"
    assert main(["ViT-B-32", "--folder", str(tmp_path)]) == 1
    assert f"not {sha256(clip)}, so it was removed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_published_addresses_hold_their_hashes():
    for name in ("ViT-B-32", "ViT-B-16"):
        assert re.fullmatch("[0-9a-f]{64}", SOURCES[name].sha256)
        assert f"/{SOURCES[name].sha256}/{name}.pt" in SOURCES[name].url
        assert SOURCES[name].folder / SOURCES[name].file == CLIP.weights.FOLDER / f"{name}.pt"


H_14 = "cdn-lfs.hf.co/repos/1/2"  # where the hub sends whoever asks for a large file
ON_HUB = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K/resolve/main/open_clip_model.safetensors"


@pytest.fixture
def hub(net) -> Net:
    net.files[H_14], net.linked_etag = WEIGHTS, sha256(WEIGHTS)
    net.moved[ON_HUB] = f"https://{H_14}"
    return net


def test_openclips_file_comes_from_the_hub_and_is_checked_against_its_etag(hub, net, tmp_path, capsys):
    assert main(["ViT-H-14", "--folder", str(tmp_path)]) == 0
    assert left(tmp_path) == ["open_clip_model.safetensors"]
    assert (tmp_path / "open_clip_model.safetensors").read_bytes() == WEIGHTS
    assert f"SHA-256 {sha256(WEIGHTS)} (as published)" in capsys.readouterr().out


def test_a_file_of_the_hub_that_is_not_the_stated_one_is_refused(hub, net, tmp_path):
    net.linked_etag = "0" * 64
    with pytest.raises(DownloadError, match=f"{sha256(WEIGHTS)}, not {'0' * 64}, so it was removed"):
        download("ViT-H-14", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_from_the_hub_goes_on(hub, net, tmp_path):
    net.cut_after = [3_000_000] + [0] * 20
    with pytest.raises(DownloadError, match=r"https://huggingface\.co/laion/CLIP-ViT-H-14"):
        download("ViT-H-14", tmp_path)
    (begun,) = tmp_path.rglob("*.part")
    size = begun.stat().st_size
    net.cut_after.clear()
    net.asked.clear()
    download("ViT-H-14", tmp_path)
    assert set(net.ranges()) == {f"bytes={size}-"} and size > 0  # of the hub and of where it sends to
    assert (tmp_path / "open_clip_model.safetensors").read_bytes() == WEIGHTS


def test_the_hub_without_the_file_is_an_error(net, tmp_path):
    with pytest.raises(DownloadError, match=r"no answer from .*open_clip_model\.safetensors .*404"):
        download("ViT-H-14", tmp_path)


def archive(path: Path, names: dict[str, str]) -> bytes:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in names.items():
            file.writestr(name, content)
    return path.read_bytes()


LISTS = {"msrvtt/MSR_VTT.json": "{}", "didemo/DiDeMo_test.tsv": "name\tcaption\n"}


@pytest.mark.parametrize("top", ["meta_data/", "", "TVTS/meta_data/"])
def test_the_lists_are_unpacked_and_own_ones_kept(net, tmp_path, capsys, top):
    names = {top + name: content for name, content in LISTS.items()}
    junk = {f"__MACOSX/{top}._x": "", f"{top}.DS_Store": "", "../outside.json": "", "/absolute.json": ""}
    key = SOURCES["meta_data"].url.split("=")[1]
    on_drive(net, key, archive(tmp_path / "lists.zip", names | (junk if top else {})))
    root = tmp_path / "root"
    own = root / "meta_data/msrvtt/MSR_VTT.json"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert main(["meta_data", "--folder", str(root)]) == 0
    assert "1 file in" in (said := capsys.readouterr().out) and "1 file there already kept" in said
    assert own.read_text() == "mine"
    assert left(root) == [f"meta_data/{name}" for name in (".downloaded", *sorted(LISTS))]
    assert left(tmp_path)[0] == "lists.zip" and not (tmp_path / "outside.json").exists()

    net.pages.clear()
    assert main(["meta_data", "--folder", str(root)]) == 0
    assert "is there already; --overwrite" in capsys.readouterr().out


def test_overwrite_replaces_lists(tmp_path):
    archive(tmp_path / "lists.zip", {f"meta_data/{name}": content for name, content in LISTS.items()})
    own = tmp_path / "root/meta_data/msrvtt/MSR_VTT.json"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    assert "2 files in" in unpack_lists(tmp_path / "lists.zip", tmp_path / "root", overwrite=True)
    assert own.read_text() == "{}"


def test_a_damaged_or_enormous_archive_unpacks_nothing(tmp_path):
    content = archive(tmp_path / "lists.zip", {"meta_data/a.json": "x" * 1000})
    (tmp_path / "lists.zip").write_bytes(content.replace(b"x" * 1000, b"x" * 999 + b"y"))
    with pytest.raises(DownloadError, match="cannot be read"):
        unpack_lists(tmp_path / "lists.zip", tmp_path / "root")
    assert not (tmp_path / "lists.zip").exists() and not (tmp_path / "root").exists()

    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as file:
        file.writestr("meta_data/a.json", "x")
        file.filelist[0].file_size = 2**60
    with pytest.raises(DownloadError, match=r"1073741824\.0 GiB of disk, more than is free"):
        unpack_lists(tmp_path / "lists.zip", tmp_path / "root")


def test_all_goes_on_past_what_cannot_be_had(net, hub, clip, tmp_path, capsys):
    on_drive(net, DRIVE_ID, WEIGHTS)
    assert main(["all", "--folder", str(tmp_path)]) == 1
    assert left(tmp_path) == ["TVTSv2_ViT_B_16.pth", "ViT-B-32.pt", "open_clip_model.safetensors"]
    said = capsys.readouterr().err
    for name in ("TVTSv2_B_32", "TVTSv2_H_14", "ViT-B-16", "meta_data"):
        assert f"error: {name} could not be downloaded: " in said


def test_two_processes_do_not_write_the_same_file(net, tmp_path):
    on_drive(net, DRIVE_ID, WEIGHTS)
    working = tmp_path / ".download/TVTSv2_B_16"
    holds = f"lock = utils.lock.lock_folder(pathlib.Path({str(working)!r}), '', '')"
    code = f"import pathlib, utils.lock; {holds}; print('locked', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, cwd=REPOSITORY) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(RunError, match=rf"another run is writing .*\(process {other.pid}\)"):
            download("TVTSv2_B_16", tmp_path)
        other.communicate(b"\n")
    assert "TVTSv2_B_16" in download("TVTSv2_B_16", tmp_path)


def test_an_unknown_name_is_answered_with_the_one_meant(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["ViT-B-23", "--folder", str(tmp_path)])
    assert "did you mean 'ViT-B-32'?" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_named(plain_user, capsys):
    (plain_user / "closed").mkdir(mode=0o500)
    assert main(["TVTSv2_B_16", "--folder", str(plain_user / "closed")]) == 1
    assert f"could not write {plain_user}/closed" in capsys.readouterr().err


def test_a_full_disk_is_said_and_the_rest_fetched_when_there_is_room(net, tmp_path, capsys):
    on_drive(net, DRIVE_ID, WEIGHTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert f"could not write {tmp_path}/.download/TVTSv2_B_16: File too large; see that there is room" in said
    download("TVTSv2_B_16", tmp_path)
    assert net.ranges()
    assert (tmp_path / "TVTSv2_ViT_B_16.pth").read_bytes() == WEIGHTS


def test_ctrl_c_says_that_the_same_command_goes_on(net, tmp_path, capsys, monkeypatch):
    on_drive(net, DRIVE_ID, WEIGHTS)
    net.cut_after = [3_000_000]

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)  # while it waits to try again
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 130
    assert "TVTSv2_B_16: stopped; the same command goes on where it was" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*.part"))) == 1


def test_without_gdown_the_command_to_install_it_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "gdown", None)
    assert main(["TVTSv2_B_16", "--folder", str(tmp_path)]) == 1
    assert "pip install 'gdown>=6.5'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
