"""Training over shards from a web server, some of whose members are damaged, killed and gone on with."""

import io
import json
import os
import random
import signal
import tarfile
import time
from pathlib import Path

import pytest

from data_loader.prepare.__main__ import main as prepare
from tests.data_loader.file_server import Server
from tests.extras import extra
from tests.trainer.runs import LIMIT, losses, wait_until
from trainer.checkpoint import list_checkpoints

VIDEOS, A_SHARD = 150, 25


@pytest.fixture
def server(world, tmp_path):
    extra("aiohttp")
    web = tmp_path / "web"
    web.mkdir()
    write_captioned(web, sorted((world / "WebVid/train").rglob("*.mp4")))
    damage(web)
    where = ["--root", str(world / "YTTemporal"), "--meta", str(world / "meta_data"), "--workers", "1"]
    assert prepare(["shards", "yttemporal", str(web / "narrated"), *where]) == 0
    server = Server(web)
    yield server
    server.shutdown()
    server.server_close()


def write_captioned(web: Path, videos: list[Path]) -> None:
    for first in range(0, VIDEOS, A_SHARD):
        with tarfile.open(web / f"train-{first:04d}.tar", "w") as tar:
            for i in range(first, first + A_SHARD):
                caption = json.dumps({"caption": f"video number {i}"}).encode()
                for suffix, content in ((".mp4", videos[i % len(videos)].read_bytes()), (".json", caption)):
                    info = tarfile.TarInfo(f"{i:04d}{suffix}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def damage(web: Path) -> None:
    """A header, a video and a text, of 300 members: one in a hundred."""
    for shard, name, part in (
        (0, "0003.mp4", "header"),
        (50, "0060.mp4", "video"),
        (75, "0080.json", "text"),
    ):
        path = web / f"train-{shard:04d}.tar"
        with tarfile.open(path) as tar:
            member = tar.getmember(name)
        at = member.offset if part == "header" else member.offset_data
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"?" * (512 if part == "header" else member.size))


@pytest.mark.heavy
def test_two_processes_over_damaged_shards_killed_five_times(server, start, arguments, tmp_path):
    common = {"format": "webdataset", "shard_cache": str(tmp_path / "cache"), "shard_cache_gb": 5e-4}
    settings = {
        "data__train": [
            {"type": "webvid", "name": "captioned", "root": server.url(""), "weight": 2, **common},
            {"type": "yttemporal", "root": server.url("narrated"), **common},
        ],
        "data__val": [],
        "data__num_workers": 1,
        "data__max_unreadable": 0.05,
        "arch__freeze_text_embeddings": True,  # smaller checkpoints
        "trainer__max_steps": 60,
        "trainer__save_every_steps": 3,
        "trainer__keep_last": 2,
        "trainer__log_every_s": 0,
    }

    def run(name: str) -> list:
        return start.ranks(2, arguments("--resume", "auto", name=name, **settings), tmp_path / f"{name}-says")

    def finish(processes: list, name: str) -> None:
        for process in processes:
            process.join(LIMIT)
        says = (tmp_path / f"{name}-says0").read_text()
        assert [process.exitcode for process in processes] == [0, 0], says

    finish(run("undisturbed"), "undisturbed")
    moments, steps = random.Random(1), []
    for _ in range(5):
        before = list_checkpoints(tmp_path / "killed")[:1]
        processes = run("killed")
        wait_until(lambda before=before: list_checkpoints(tmp_path / "killed")[:1] != before)
        time.sleep(moments.uniform(0, 0.1))
        assert processes[0].is_alive(), (tmp_path / "killed-says0").read_text()
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.join()
        steps.append(list_checkpoints(tmp_path / "killed")[0].name)
    finish(run("killed"), "killed")

    assert len(set(steps)) == 5  # each kill at another place
    expected = losses(tmp_path / "undisturbed")
    assert len(expected) == 60
    assert losses(tmp_path / "killed") == expected
    said = "".join((tmp_path / f"undisturbed-says{rank}").read_text() for rank in range(2))
    assert "1 place that cannot be read" in said and "train-0000.tar: damaged: no tar header" in said
    assert "unreadable, another sample takes its place" in said
    assert sum(path.stat().st_size for path in (tmp_path / "cache").glob("*.part")) <= 500_000
