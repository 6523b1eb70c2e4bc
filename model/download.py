"""Released checkpoints, data set lists and CLIP's weights by name, each into its place.

    python -m model.download TVTSv2_B_16
    python -m model.download ViT-B-16 meta_data

Stopped, the same command goes on where it was. Exit status: 0 done, 1 something could not be downloaded, 2 an
unknown name, 130 stopped by Ctrl-C.
"""

import contextlib
import re
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from CLIP import weights as clip_weights
from OpenCLIP import weights as openclip_weights
from utils.commands import CommandParser
from utils.config import USER_ROOT, nearest_key
from utils.errors import RunError
from utils.files import WriteError, sha256_of, write_text
from utils.lock import lock_folder
from utils.text import counted

COMMAND = "python -m model.download"
RELEASED = {  # name -> its file's name, and its id on Google Drive
    "TVTSv2_B_32": ("TVTSv2_ViT_B_32.pth", "1zNHgqioo-aRUwZXPyTDiRT2uaRrnk386"),
    "TVTSv2_B_16": ("TVTSv2_ViT_B_16.pth", "1HKc7aGwMd5jhVaYztuY-jbmYqiz_wvWF"),
    "TVTSv2_H_14": ("TVTSv2_ViT_H_14.pth", "1nxNSaQKm2jt9NSZ3eLnKx7ATTumV-6D5"),
}
META_DATA = "meta_data"
COMPLETE = ".downloaded"  # in meta_data/ once all lists are there: the SHA-256 of their archive
RETRIES = 4  # of a broken connection, with growing pauses: about 8 s in all
TIMEOUT_S = 60.0  # without a byte


class DownloadError(RuntimeError):
    """A file could not be fetched, or is not what was published; the message says what to do by hand."""


@dataclass(frozen=True)
class Source:
    """Where a file comes from and where it goes."""

    folder: Path
    file: str
    page: str  # to open in a browser where the command gets no further
    url: str = ""  # of the file itself
    repository: str = ""  # of the Hugging Face hub, in place of a URL
    sha256: str | None = None  # as published

    @property
    def place(self) -> Path:
        return self.folder / self.file


def _on_drive(folder: Path, file: str, key: str) -> Source:
    page = f"https://drive.google.com/file/d/{key}/view"
    return Source(folder, file, page, f"https://drive.google.com/uc?id={key}")


def _of_clip(file: str, url: str) -> Source:
    return Source(clip_weights.FOLDER, file, url, url, sha256=url.split("/")[-2])


def _of_openclip(file: str) -> Source:
    page = f"https://huggingface.co/{openclip_weights.REPOSITORY}/blob/main/{file}"
    return Source(openclip_weights.FOLDER, file, page, repository=openclip_weights.REPOSITORY)


SOURCES: dict[str, Source] = {
    **{name: _on_drive(USER_ROOT, file, key) for name, (file, key) in RELEASED.items()},
    **{file.removesuffix(".pt"): _of_clip(file, url) for file, url in clip_weights.SOURCES.items()},
    "ViT-H-14": _of_openclip(openclip_weights.FILES[0]),
    META_DATA: _on_drive(USER_ROOT, META_DATA, "1EOdB1MmPUHvHDW2le7WbAC1fbDV6LOTM"),
}


def download(name: str, folder: str | Path | None = None, overwrite: bool = False) -> str:
    """Fetch one of SOURCES into its place, or into `folder`; returns what was done, to be printed.

    What has come of an interrupted download is kept in the folder `.download/` beside the place, and the next
    call goes on from there. A file stands in its place only when it is whole and, where its hash is
    published, has that hash.

    Raises:
        ValueError: an unknown name.
        DownloadError: no connection, a refusal (Google Drive has quotas), or not the published file.
        RunError: another process is downloading the same.
        WriteError: the folder cannot be written, or the disk is full.
        ModuleNotFoundError: gdown is not installed; says how to install it.
    """
    if name not in SOURCES:
        raise ValueError(f"nothing is called {name!r}; {nearest_key(name, [*SOURCES, 'all'])}")
    source = SOURCES[name]
    root = Path(folder or source.folder).absolute()
    place = root / source.file
    whole = place / COMPLETE if name == META_DATA else place
    if whole.exists() and not overwrite:
        return _already_there(name, place, source.sha256)
    working = root / ".download" / name
    lock = lock_folder(working, str(place), "choose another --folder")
    try:
        with lock or contextlib.nullcontext(), _left_tidy(working):
            fetched = working / "file"
            url, published = source.url, source.sha256
            if source.repository:
                url, published = _on_hub(source.repository, source.file)
            _fetch(url, fetched)
            digest = _checked(fetched, published)
            if name == META_DATA:
                done = unpack_lists(fetched, root, overwrite)
                write_text(digest + "\n", whole)
            else:
                fetched.replace(place)
                done = str(place)
    except DownloadError as error:
        goal = f"unpack it in {root}" if name == META_DATA else f"put it at {place}"
        raise DownloadError(
            f"{name} could not be downloaded: {error}\n"
            f"The same command tries again, and goes on from what has come into {working}. By hand: open "
            f"{source.page} in a browser, download the file and {goal}"
        ) from error
    except OSError as error:
        raise WriteError.of(working, error) from error
    return f"{name}: {done}, SHA-256 {digest} ({'as' if published else 'none is'} published)"


def _already_there(name: str, place: Path, published: str | None) -> str:
    if name == META_DATA:
        return f"{name}: {place} is there already; --overwrite fetches the lists again"
    digest = sha256_of(place)
    if published and digest != published:
        raise DownloadError(
            f"{place} is there already, but is not the published file: its SHA-256 is {digest}, not "
            f"{published}; --overwrite fetches it again"
        )
    return f"{name}: {place} is there already, SHA-256 {digest}{' (as published)' if published else ''}"


@contextlib.contextmanager
def _left_tidy(folder: Path) -> Iterator[None]:
    """What remains, of a download that failed, is what the next call can use."""
    failed = True
    try:
        yield
        failed = False
    finally:
        begun = (path for pattern in ("*.part", "file") for path in folder.rglob(pattern))
        if not (failed and any(path.stat().st_size for path in begun)):
            shutil.rmtree(folder)
            with contextlib.suppress(OSError):  # other downloads' files are in it
                folder.parent.rmdir()


def _on_hub(repository: str, file: str) -> tuple[str, str | None]:
    """The address and SHA-256 that the Hugging Face hub, or the mirror HF_ENDPOINT, states for a file.

    Its library could fetch the file, too, but would start afresh whenever the command is run again.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    url = hf_hub_url(repository, file)
    of_transport = cast(tuple[type[Exception], ...], HfHubHTTPError.__bases__)
    failures: tuple[type[Exception], ...] = (*of_transport, OSError, ValueError)
    try:
        etag = get_hf_file_metadata(url).etag or ""
    except failures as error:
        raise DownloadError(f"no answer from {url} ({_in_a_line(error)})") from error
    return url, etag if re.fullmatch("[0-9a-f]{64}", etag) else None


def _fetch(url: str, path: Path) -> None:
    """Fetch, or go on fetching, a file from Google Drive, past its page about viruses, or a plain address."""
    try:
        import gdown
        import requests
        from gdown.exceptions import DownloadError as Refusal
    except ImportError as error:
        raise ModuleNotFoundError(
            f"downloading needs the package gdown: {sys.executable} -m pip install 'gdown>=6.5'"
        ) from error
    begun = list(path.parent.glob("*.part"))
    messages = {"start": "", "output": ""}
    try:
        gdown.download(
            url,
            str(path),
            resume=True,
            retries=RETRIES,
            timeout=TIMEOUT_S,
            use_cookies=False,
            log_messages=messages,
        )
    except (Refusal, requests.RequestException) as error:
        if begun and "byte range" in str(error):  # the server cannot go on, or the file had come whole
            begun[0].unlink()
            return _fetch(url, path)
        origin: BaseException = error
        if isinstance(error, Refusal):  # what gdown wraps is shorter: Google's own words, where it has any
            origin = error.__cause__ or error.__context__ or error
        if isinstance(origin, requests.ConnectionError):
            origin = getattr(origin.args[0], "reason", origin)  # without urllib3's words around it
            raise DownloadError(f"no connection to {url.split('/')[2]} ({_in_a_line(origin)})") from error
        raise DownloadError(_in_a_line(origin)) from error
    except KeyError as error:  # an answer without the headers that gdown looks for
        raise DownloadError(f"{url} gave an answer without {error}") from error


def _in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _checked(path: Path, published: str | None) -> str:
    """The SHA-256 of what has come; if that is not the file meant, DownloadError, and it is removed."""
    digest = sha256_of(path)
    with open(path, "rb") as file:
        start = file.read(40)
    reason = None
    if published and digest != published:
        reason = f"what came has the SHA-256 {digest}, not {published}, so it was removed"
    elif not published and not (zipfile.is_zipfile(path) or start.startswith(b"\x80")):  # a pickle of old
        reason = f"what came is neither weights nor an archive, it begins with {start!r}, so it was removed"
    if reason:
        path.unlink()
        raise DownloadError(reason)
    return digest


def unpack_lists(archive: Path, root: Path, overwrite: bool = False) -> str:
    """Unpack meta_data's archive so that root/meta_data/ holds it; returns what was done, to be printed.

    Lists that are there already, as `python -m data_loader.prepare` makes them, are kept, unless `overwrite`.

    Raises:
        DownloadError: the archive cannot be read (it is removed) or needs more room than there is; no list
            was put into its place.
    """
    unpacked = archive.with_name("unpacked")
    shutil.rmtree(unpacked, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            size = sum(member.file_size for member in file.infolist())
            if size > shutil.disk_usage(archive.parent).free:
                raise DownloadError(f"the lists take {size / 2**30:.1f} GiB of disk, more than is free")
            file.extractall(unpacked)  # never above it, whatever the members are called
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        raise DownloadError(f"the archive cannot be read ({_in_a_line(error)}), so it was removed") from error

    tops = sorted(unpacked.rglob(META_DATA), key=lambda path: len(path.parts))
    top = tops[0] if tops else unpacked
    new = kept = 0
    for path in sorted(path for path in top.rglob("*") if path.is_file()):
        if "__MACOSX" in path.parts or path.name.startswith("."):
            continue
        place = root / META_DATA / path.relative_to(top)
        if place.exists() and not overwrite:
            kept += 1
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        new += 1
    note = f" ({counted(kept, 'files')} there already kept; --overwrite replaces them)" if kept else ""
    return f"{META_DATA}: {counted(new, 'files')} in {root / META_DATA}{note}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when something could not be downloaded, 2 for an unknown name, 130 when stopped."""
    parser = CommandParser(
        COMMAND,
        "\n".join(
            [__doc__, "", "names:", *(f"  {name:12} {source.place}" for name, source in SOURCES.items())]
        ),
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="one of the names below, or all")
    parser.add_argument("--folder", metavar="DIR", help="where to put it, in place of the places below")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    args = parser.parse_args(argv)
    failed = 0
    for name in SOURCES if "all" in args.names else args.names:
        try:
            print(download(name, args.folder, args.overwrite), flush=True)
        except KeyboardInterrupt:
            print(f"\n{name}: stopped; the same command goes on where it was", file=sys.stderr)
            return 130
        except ValueError as error:
            parser.error(str(error))
        except (DownloadError, RunError, WriteError, ModuleNotFoundError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
