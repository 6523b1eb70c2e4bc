"""Shards behind a URL: the samples of a folder's, in one request each, and what is kept of them."""

import os
import shutil

import pytest

from data_loader import build_dataset, build_loader
from data_loader.shard_files import DiskCache
from data_loader.video import sources
from tests.data_loader.file_server import Server
from tests.data_loader.test_shards import two_samples
from tests.data_loader.worlds import options
from tests.extras import extra


@pytest.fixture
def server(tmp_path, monkeypatch):
    extra("aiohttp")
    monkeypatch.setattr(sources, "WAITS", (0.01, 0.01, 0.01))
    (tmp_path / "web").mkdir()
    server = Server(tmp_path / "web")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def shards(server):
    """Two of two samples each."""
    for i in range(2):
        two_samples(server.folder / f"train-{i}.tar", f"one {i}".encode(), f"two {i}".encode())
    return server.folder


def open_url(server, tmp_path, **more):
    where = {"root": server.url(""), "shard_cache": tmp_path / "cache", **more}
    return build_dataset("webvid", "train", format="webdataset", **{**options(tmp_path), **where})


def texts(dataset) -> list[str]:
    return [dataset[i]["text"][0] for i in range(len(dataset))]


def test_samples_come_in_one_request_each_and_then_from_the_cache(server, shards, tmp_path):
    dataset = open_url(server, tmp_path)
    local = build_dataset("webvid", "train", format="webdataset", **{**options(tmp_path), "root": shards})
    server.asked = 0
    for i in range(4):
        ours, theirs = dataset[(3, i)], local[(3, i)]
        assert ours["text"] == theirs["text"] and (ours["video"] == theirs["video"]).all()
    assert server.asked == 4
    again = open_url(server, tmp_path)
    server.asked = server.sent = 0
    assert texts(again) == ["one 0", "two 0", "one 1", "two 1"]
    assert server.asked == 0


def test_workers_read_them(server, shards, tmp_path):
    loader = build_loader(open_url(server, tmp_path), 2, train=True, num_workers=2)
    assert sorted(key for batch in loader for key in batch["id"]) == ["a", "a", "b", "b"]


def test_an_index_beside_them_spares_the_walk_and_stands_for_a_list(server, shards, tmp_path, monkeypatch):
    open_url(server, tmp_path)
    [index] = (tmp_path / "cache").glob("*-train-index.npz")
    shutil.copy(index, shards / "train-index.npz")
    for path in shards.glob("*.tar"):
        os.utime(path, (1, 1))  # as uploading gives another time
    shutil.rmtree(tmp_path / "cache")
    server.lists = False
    monkeypatch.setattr("data_loader.shard_index.make", lambda *_: pytest.fail("walked through"))
    assert texts(open_url(server, tmp_path)) == ["one 0", "two 0", "one 1", "two 1"]


def test_a_shard_that_is_not_the_index_s_own_is_walked_through(server, shards, tmp_path):
    open_url(server, tmp_path)
    [index] = (tmp_path / "cache").glob("*-train-index.npz")
    shutil.copy(index, shards / "train-index.npz")
    size = (shards / "train-1.tar").stat().st_size
    content = two_samples(shards / "train-1.tar", b"new 1", b"two" * 30)
    assert len(content) == size  # the headers alone tell
    shutil.rmtree(tmp_path / "cache")
    assert texts(open_url(server, tmp_path))[2:] == ["new 1", "two" * 30]


def test_a_shard_that_changes_while_it_is_read(server, shards, tmp_path):
    dataset = open_url(server, tmp_path, view="test", allow_missing=True)
    two_samples(shards / "train-1.tar", b"uno" * 200, b"dos")
    place = f"{server.url('')}train-1.tar/b.mp4"
    failure = dataset[3]["missing"]
    assert failure.path in (place, place.rpartition("/")[0])
    (shards / "train-0.tar").unlink()
    assert dataset[0]["missing"].reason == "no such file"


def test_broken_connections_are_tried_again(server, shards, tmp_path):
    dataset = open_url(server, tmp_path)
    server.to_break = 3
    assert texts(dataset) == ["one 0", "two 0", "one 1", "two 1"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda server: setattr(server, "ranges", False), "gives no parts of files"),
        (lambda server: vars(server).update(ranges=False, announces=False), "gives no parts of files"),
        (
            lambda server: setattr(server, "lists", False),
            r"no shards train-\*\.tar in http.*train-index\.npz",
        ),
        (lambda server: (server.folder / "train-1.tar").write_bytes(b""), "train-1.tar: the file is empty"),
        (lambda server: (server.folder / "train-1.tar").write_bytes(b"x" * 4000), "is no whole tar file"),
        (lambda server: os.truncate(server.folder / "train-1.tar", 700), "unexpected end of data"),
    ],
)
def test_what_cannot_be_opened_is_named(server, shards, tmp_path, prepare, message):
    two_samples(shards / "train-0.tar", b"x" * 2**20)  # more than a block
    prepare(server)
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){message}"):
        open_url(server, tmp_path)


@pytest.mark.heavy
def test_urls_are_for_shards(tmp_path):
    with pytest.raises(ValueError, match="behind a URL there are shards alone"):
        build_dataset("webvid", "train", **{**options(tmp_path), "root": "https://localhost/x"})
    with pytest.raises(ValueError, match="fsspec knows no nowhere://"):
        build_dataset("webvid", "train", format="webdataset", **{**options(tmp_path), "root": "nowhere://x"})


def test_a_bucket(bucket, tmp_path):
    import fsspec

    for i in range(2):
        path = tmp_path / f"data/train-{i}.tar"
        two_samples(path, f"one {i}".encode(), f"two {i}".encode())
        with fsspec.open(f"{bucket}/shards/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    where = {**options(tmp_path), "root": f"{bucket}/shards", "shard_cache": tmp_path / "cache"}
    dataset = build_dataset("webvid", "train", format="webdataset", **where)
    shutil.rmtree(tmp_path / "cache")  # so that the loader's workers ask, too
    loader = build_loader(dataset, 2, train=True, num_workers=2)
    assert sorted(text for batch in loader for text in batch["text"]) == ["one 0", "one 1", "two 0", "two 1"]
    assert texts(dataset) == ["one 0", "two 0", "one 1", "two 1"]


class TestDiskCache:
    def size(self, folder) -> int:
        return sum(path.stat().st_size for path in folder.glob("*.part"))

    def test_it_never_holds_more_than_its_bound(self, tmp_path):
        cache = DiskCache(tmp_path, 1000)
        for i in range(50):
            cache.put(f"{i}.part", bytes([i]) * 90)
            assert self.size(tmp_path) <= 1000
        assert cache.get("49.part", 90) == bytes([49]) * 90
        assert cache.get("0.part", 90) is None
        cache.put("large.part", bytes(1001))
        assert cache.get("large.part", 1001) is None and cache.get("49.part", 90)

    def test_what_was_used_last_stays(self, tmp_path):
        cache = DiskCache(tmp_path, 1000)
        for i in range(10):
            cache.put(f"{i}.part", bytes(96))
            os.utime(tmp_path / f"{i}.part", (i, i))
        assert cache.get("0.part", 96)
        cache.put("new.part", bytes(96))
        assert cache.get("0.part", 96) and cache.get("new.part", 96) and not cache.get("1.part", 96)

    def test_a_part_of_other_bytes_than_were_put_there_is_none(self, tmp_path):
        """As a power cut leaves them: zeros, for one."""
        cache = DiskCache(tmp_path, 1000)
        cache.put("0.part", b"bytes of a shard")
        (tmp_path / "0.part").write_bytes(bytes((tmp_path / "0.part").stat().st_size))
        assert cache.get("0.part", 16) is None
        cache.put("0.part", b"bytes of a shard")
        assert cache.get("0.part", 16) == b"bytes of a shard"

    def test_a_part_that_was_cut_and_a_wrong_count_are_mended(self, tmp_path):
        cache = DiskCache(tmp_path, 1000)
        for i in range(9):
            cache.put(f"{i}.part", bytes(96))
        os.truncate(tmp_path / "3.part", 10)
        assert cache.get("3.part", 96) is None
        (tmp_path / "bytes").write_text("no number")
        cache.put("new.part", bytes(500))
        assert cache.get("new.part", 500) and self.size(tmp_path) <= 1000

    def test_a_disk_that_fails_is_done_without(self, tmp_path, caplog):
        (tmp_path / "file").write_text("")
        cache = DiskCache(tmp_path / "file", 1000)
        for _ in range(2):
            cache.put("a.part", b"a")
        assert len(caplog.messages) == 1 and "kept there no longer" in caplog.text
