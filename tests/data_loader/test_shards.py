import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from data_loader import JointLoader, build_dataset, build_loader, shard_index
from data_loader.prepare.__main__ import main as prepare
from data_loader.shards import webvid
from tests.data_loader import worlds
from tests.data_loader.worlds import options

MASK = {"mask_ratio": 0.5, "num_patches": 4}
WORLDS = {"webvid": worlds.webvid, "yttemporal": worlds.yttemporal}


def make_shards(folder, kind: str, split: str = "train", size: int = 3) -> int:
    where = ["--root", str(folder / "data"), "--meta", str(folder / "meta_data"), "--workers", "1"]
    size_of = ["--videos-per-shard", str(size)]
    return prepare(["shards", kind, str(folder / "shards"), "--split", split, *where, *size_of])


@pytest.fixture(scope="module", params=list(WORLDS))
def world(request, tmp_path_factory):
    """A data set of files and, in shards, the same."""
    folder = WORLDS[request.param](tmp_path_factory.mktemp(request.param))
    assert make_shards(folder, request.param) == make_shards(folder, request.param, "val") == 0
    return request.param, folder


def both(world, split: str = "train"):
    kind, folder = world
    files = build_dataset(kind, split, **MASK, **options(folder))
    in_shards = {**options(folder), "root": folder / "shards"}
    return files, build_dataset(kind, split, format="webdataset", **MASK, **in_shards)


def same(a: dict, b: dict) -> bool:
    tensors = all(torch.equal(a[key], b[key]) for key in ("video", "keep_ind") if key in a)
    return a.keys() == b.keys() and tensors and all(a[key] == b[key] for key in ("text", "id", "index"))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_shards_hold_the_same_samples_as_files(world, split):
    files, shards = both(world, split)
    assert len(shards) == len(files)
    for index in range(len(files)):
        assert same(files[(1, index)], shards[(1, index)])


def test_they_are_plain_webdataset_shards(world):
    kind, folder = world
    paths = sorted((folder / "shards").glob("train-*.tar"))
    assert [path.name for path in paths] == [f"train-{i:06d}.tar" for i in range(len(paths))]
    assert len(paths) > 1
    with tarfile.open(paths[0]) as tar:
        names = tar.getnames()
        facts = json.load(tar.extractfile(names[1]))
    assert [name.rpartition(".")[2] for name in names] == ["mp4", "json"] * 3
    assert [name.partition(".")[0] for name in names[::2]] == [name.partition(".")[0] for name in names[1::2]]
    assert ("caption" in facts) == (kind == "webvid")


def test_the_webdataset_package_reads_them(world):
    _, folder = world
    paths = [str(path) for path in sorted((folder / "shards").glob("train-*.tar"))]
    files, _ = both(world)
    samples = list(webdataset.WebDataset(paths, shardshuffle=False, empty_check=False))
    assert [sample["mp4"] for sample in samples] == [path.read_bytes() for path in files.video_paths]


def test_ranks_and_workers_share_them_out(world):
    files, shards = both(world)
    seen = []
    for rank in range(2):
        loader = build_loader(shards, 2, train=True, num_workers=2, rank=rank, world_size=2)
        seen.append([i for batch in loader for i in batch["id"]])
    assert len(seen[0]) == len(seen[1]) == len(files) // 2
    assert sorted(seen[0] + seen[1]) == sorted(files.records.id(i) for i in range(len(files)))


def test_the_joint_loader_continues_in_shards(world):
    _, shards = both(world)
    joint = JointLoader([build_loader(shards, 2, train=True)])
    expected = [batch["id"] for _, batch in joint]
    joint.set_epoch(0, 1)
    assert [batch["id"] for _, batch in joint] == expected[1:]


def test_the_index_is_kept_and_renewed(world, tmp_path):
    folder = worlds.copy_world(world[1], tmp_path) / "shards"
    stored = folder / "train-index.npz"
    before, state = len(webvid("train", folder, folder)), stored.stat()
    webvid("train", folder, folder)
    assert stored.stat().st_mtime_ns == state.st_mtime_ns
    sorted(folder.glob("train-*.tar"))[-1].unlink()
    assert len(webvid("train", folder, folder)) == (before - 1) // 3 * 3
    stored.write_bytes(b"broken")
    assert len(webvid("train", folder, folder)) == (before - 1) // 3 * 3


def place(row: int, column: int, offset: int, size: int):
    def change(index: dict) -> None:
        index["places"][row, column, :2] = offset, size

    return change


@pytest.mark.parametrize(
    "change, reason",
    [
        (place(1, 0, -512, 100), "sample 1 is not in the shard"),
        (place(1, 0, 0, 100), "sample 1 is not in the shard"),
        (place(1, 0, 512, 2**40), "sample 1 is not in the shard"),
        (place(1, 0, 2**62, 2**62), "sample 1 is not in the shard"),
        (place(1, 0, 512, -1), "sample 1 is not in the shard"),
        (place(1, 1, 2**40, 10), "sample 1 is not in the shard"),
        (place(1, 2, 512, -5), "sample 1 is not in the shard"),
        (lambda index: index["shard"].fill(99), "shards or kinds of video that there are not"),
        (lambda index: index["suffix"].fill(99), "shards or kinds of video that there are not"),
        (lambda index: index.update(keys=index["keys"][:2]), "number of keys"),
        (lambda index: index.update(keys=index["keys"] | 0x80), "decode"),
        (lambda index: index.update(places=index["places"].astype(float)), "places is float64"),
        (lambda index: index.update(shard=index["shard"][:0]), "suffix is uint8"),
        (lambda index: index.pop("suffix"), "suffix"),
    ],
)
def test_an_index_of_places_that_are_not_in_the_shards_is_an_error(world, tmp_path, change, reason):
    folder = worlds.copy_world(world[1], tmp_path) / "shards"
    webvid("train", folder, folder)
    stored = folder / "train-index.npz"
    index = dict(np.load(stored))
    change(index)
    np.savez(stored, **index)
    with pytest.raises(ValueError, match=rf"train-index\.npz is no index .*{reason}.*remove it"):
        webvid("train", folder, folder)


def claims_terabytes(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("state.npy", header.getvalue())


def expands_to_gigabytes(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("state.npy", bytes(2**24))


@pytest.mark.parametrize("write", [claims_terabytes, expands_to_gigabytes])
def test_an_index_that_claims_more_than_its_file_holds_is_made_anew(world, tmp_path, write):
    folder = worlds.copy_world(world[1], tmp_path) / "shards"
    stored, count = folder / "train-index.npz", len(webvid("train", folder, folder))
    write(stored)
    assert len(webvid("train", folder, folder)) == count
    assert "places" in np.load(stored)


def test_making_them_again_keeps_finished_shards(world, tmp_path, capsys):
    kind, folder = world
    folder = worlds.copy_world(folder, tmp_path)
    first, second = sorted((folder / "shards").glob("train-*.tar"))[:2]
    first.write_bytes(first.read_bytes())
    kept = first.stat().st_mtime_ns
    second.unlink()
    assert make_shards(folder, kind) == 0
    assert first.stat().st_mtime_ns == kept
    assert second.is_file()
    assert "0 left out" in capsys.readouterr().out


def test_what_cannot_be_packed_is_left_out_and_counted(tmp_path, capsys):
    worlds.yttemporal(tmp_path, train=4)
    (tmp_path / "data/videos/subset_87/data/train1.mp4").unlink()
    (tmp_path / "data/videos/subset_87/annotations/train2.json").write_text("{}")
    assert make_shards(tmp_path, "yttemporal") == 0
    assert "2 videos in 2 shards, 2 left out" in capsys.readouterr().out


def test_a_shard_of_which_nothing_can_be_packed_is_none(tmp_path, capsys):
    worlds.yttemporal(tmp_path, train=6)
    videos = [tmp_path / f"data/videos/subset_87/data/train{i}.mp4" for i in range(6)]
    kept = videos[0].read_bytes()
    for video in videos[:2]:
        video.unlink()
    for _ in range(2):
        assert make_shards(tmp_path, "yttemporal", size=2) == 0
        assert "4 videos in 2 shards" in capsys.readouterr().out
        found = build_dataset("yttemporal", "train", **yttemporal_shards(tmp_path)).records
        assert [Path(found.id(i)).stem for i in range(4)] == ["train2", "train3", "train4", "train5"]
    for video in videos[2:]:
        video.unlink()
    assert make_shards(tmp_path, "yttemporal", size=2) == 1
    assert "none of the 6 videos could be packed" in capsys.readouterr().err
    videos[0].write_bytes(kept)
    assert make_shards(tmp_path, "yttemporal", size=2) == 0
    assert "1 video in 1 shard" in capsys.readouterr().out


def yttemporal_shards(folder) -> dict:
    return {"format": "webdataset", **options(folder), "root": folder / "shards"}


def test_an_empty_shard_of_another_program_is_passed_over(tmp_path, caplog):
    write_tar(tmp_path / "data/train-0.tar", {"a.mp4": worlds.template(20), "a.txt": b"one"})
    for number in (1, 2):
        write_tar(tmp_path / f"data/train-{number}.tar", {})
    assert len(open_webvid(tmp_path)) == 1 and "same names" not in caplog.text
    (tmp_path / "data/train-1.tar").write_bytes(bytes(100_000))  # no file of zeros, though
    with pytest.raises(ValueError, match=r"train-1\.tar is no whole tar file"):
        open_webvid(tmp_path)


def test_links_are_named(tmp_path, caplog):
    """As tar packs a folder in which a file has two names."""
    (tmp_path / "data").mkdir()
    files = worlds.put_video(tmp_path / "files/a.mp4").parent
    os.link(files / "a.mp4", files / "b.mp4")
    os.symlink("a.mp4", files / "c.mp4")
    (files / "a.txt").write_text("one")
    with tarfile.open(tmp_path / "data/train-0.tar", "w") as tar:
        for name in ("a.mp4", "a.txt", "b.mp4", "c.mp4"):
            tar.add(files / name, name)
    found = open_webvid(tmp_path).records
    assert len(found) == 1
    reasons = [failure.reason for failure in found.damage]
    assert len(reasons) == 2 and "b.mp4 is a link" in reasons[0] and "c.mp4 is a link" in reasons[1]
    assert "2 places that cannot be read" in caplog.text


def write_tar(path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def open_webvid(tmp_path, **more):
    return build_dataset("webvid", "train", format="webdataset", **{**options(tmp_path), **more})


def test_shards_of_other_programs(tmp_path):
    """video2dataset writes captions as text files, and its order of files is any."""
    files = {
        "a/0.txt": b" a text \n",
        "a/0.mp4": worlds.template(20),
        "b.json": b'{"caption": "from json"}',
        "b.webm": worlds.template(20),
        "no_video.txt": b"x",
    }
    write_tar(tmp_path / "data/train-0.tar", files)
    dataset = open_webvid(tmp_path)
    assert len(dataset) == 2
    assert [dataset[i]["text"] for i in range(2)] == [["a text"], ["from json"]]
    assert [dataset.records.id(i) for i in range(len(dataset))] == ["a/0", "b"]


def test_original_transcripts_are_aligned_when_read(tmp_path):
    content = json.dumps(worlds.transcript(["one", "two"], 20)).encode()
    write_tar(tmp_path / "data/train-0.tar", {"x.mp4": worlds.template(30), "x.json": content})
    dataset = build_dataset("yttemporal", "train", format="webdataset", **options(tmp_path))
    item = dataset[0]
    assert len(item["text"]) == dataset.records.num_clips == 4
    assert item["id"] == "x.mp4"


def test_broken_samples_are_replaced_and_named(tmp_path):
    good = {"good.mp4": worlds.template(20), "good.txt": b"fine"}
    bad = {
        "broken.mp4": b"no video" * 20,
        "broken.txt": b"broken",
        "silent.mp4": worlds.template(20),
        "wrong.mp4": worlds.template(20),
        "wrong.json": b"{",
    }
    write_tar(tmp_path / "data/train-0.tar", {**bad, **good})
    dataset = open_webvid(tmp_path, view="test", allow_missing=True)
    failures = [dataset[i].get("missing") for i in range(4)]
    shard = tmp_path / "data/train-0.tar"
    assert failures[0].path == f"{shard}/broken.mp4"
    assert failures[1] == (f"{shard}/silent.mp4", 'there is no "caption" beside it')
    assert failures[2].path == f"{shard}/wrong.mp4"
    assert failures[2].reason.startswith("the text beside it cannot be read")
    assert failures[3] is None
    assert open_webvid(tmp_path)[0]["text"] == ["fine"]


def test_a_shard_cut_off_after_it_was_indexed(tmp_path):
    path = tmp_path / "data/train-0.tar"
    write_tar(path, {"a.mp4": worlds.template(20), "a.txt": b"a"})
    dataset = open_webvid(tmp_path, view="test", allow_missing=True)
    path.write_bytes(path.read_bytes()[:900])
    assert dataset[0]["missing"] == (f"{path}/a.mp4", "the shard ends in it")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the folder .*data is missing"):
        open_webvid(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no shards train-\*\.tar in .*\n.*prepare shards"):
        open_webvid(tmp_path)
    (tmp_path / "data/train-0.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ValueError, match=r"train-0\.tar is no whole tar file"):
        open_webvid(tmp_path)
    write_tar(tmp_path / "data/train-0.tar", {"a.txt": b"a"})
    with pytest.raises(ValueError, match="hold no videos"):
        open_webvid(tmp_path)


def test_captions_stay_with_their_videos(tmp_path):
    """Also those of a video listed twice, and of names that differ in a '.' alone."""
    worlds.webvid(tmp_path)
    paths = ["000/0", "001/1", "001/1", "000/2", "001/1", "a.b", "a_b", "50%2E", "50."]
    rows = [(f"caption {i}", path) for i, path in enumerate(paths)]
    worlds.put_table(tmp_path / "meta_data/webvid_train.tsv", rows, ["caption", "path"])
    for path in paths:
        worlds.put_video(tmp_path / f"data/train/{path}.mp4", 20)
    assert make_shards(tmp_path, "webvid", size=4) == 0
    files, shards = both(("webvid", tmp_path))
    assert len(shards) == len(paths)
    assert [(shards[i]["text"], shards[i]["id"]) for i in range(len(paths))] == [
        ([caption], path) for caption, path in rows
    ]
    assert all(same(files[i], shards[i]) for i in range(len(paths)))
    tars = [str(path) for path in sorted((tmp_path / "shards").glob("train-*.tar"))]
    loaded = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [json.loads(sample["json"])["caption"] for sample in loaded] == [caption for caption, _ in rows]


class TestMadeAgain:
    """What the shards hold is what the list says now."""

    @pytest.fixture
    def folder(self, tmp_path):
        worlds.webvid(tmp_path, train=4)
        assert make_shards(tmp_path, "webvid", size=2) == 0
        return tmp_path

    def texts(self, folder) -> list[str]:
        shards = {**options(folder), "root": folder / "shards"}
        dataset = build_dataset("webvid", "train", format="webdataset", **shards)
        return [dataset[i]["text"][0] for i in range(len(dataset))]

    def put_list(self, folder, captions) -> None:
        rows = [[caption, f"{i % 2:03d}/{i}"] for i, caption in enumerate(captions)]
        worlds.put_table(folder / "meta_data/webvid_train.tsv", rows, ["caption", "path"])

    def test_after_a_caption_changed(self, folder, capsys):
        _, second = sorted((folder / "shards").glob("train-*.tar"))
        untouched = second.stat().st_mtime_ns
        captions = ["changed", *(f'train caption {i}, "quoted"' for i in range(1, 4))]
        self.put_list(folder, captions)
        assert make_shards(folder, "webvid", size=2) == 0
        assert "4 videos in 2 shards (1 there already), 0 left out" in capsys.readouterr().out
        assert self.texts(folder) == captions
        assert second.stat().st_mtime_ns == untouched

    def test_after_the_list_became_shorter(self, folder, capsys):
        self.put_list(folder, ["a", "b"])
        assert make_shards(folder, "webvid", size=2) == 0
        assert "train-000001.tar belongs to an earlier list" in capsys.readouterr().out
        assert self.texts(folder) == ["a", "b"]

    @pytest.mark.parametrize("size", [1, 4])
    def test_with_another_number_of_videos_a_shard(self, folder, size):
        before = self.texts(folder)
        assert make_shards(folder, "webvid", size=size) == 0
        assert self.texts(folder) == before
        assert len(list((folder / "shards").glob("train-*.tar"))) == 4 // size

    def test_after_a_video_has_arrived(self, folder, capsys):
        video = folder / "data/train/001/1.mp4"
        content = video.read_bytes()
        video.unlink()
        assert make_shards(folder, "webvid", size=2) == 0
        printed = capsys.readouterr().out
        assert f"1: No such file or directory, e.g. {video}" in printed
        assert "3 videos in 2 shards (1 there already), 1 left out" in printed
        video.write_bytes(content)
        assert make_shards(folder, "webvid", size=2) == 0
        assert len(self.texts(folder)) == 4

    def test_shards_of_other_programs_are_not_touched(self, folder, capsys):
        foreign = folder / "shards/train-7.tar"
        write_tar(foreign, {"a.mp4": b"a"})
        content = foreign.read_bytes()
        assert make_shards(folder, "webvid", size=2) == 1
        assert f"{foreign} and 0 more shards were not written by this" in capsys.readouterr().err
        assert foreign.read_bytes() == content


def two_samples(path, first: bytes = b"one", second: bytes = b"two") -> bytes:
    video = worlds.template(20)
    write_tar(path, {"a.mp4": video, "a.txt": first, "b.mp4": video, "b.txt": second})
    return path.read_bytes()


def test_an_edited_shard_of_equal_size_is_indexed_anew(tmp_path):
    path = tmp_path / "data/train-0.tar"
    size = len(two_samples(path, b"one", b"two" * 200))
    assert open_webvid(tmp_path)[0]["text"] == ["one"]
    assert len(two_samples(path, b"uno" * 200, b"dos")) == size
    dataset = open_webvid(tmp_path)
    assert [dataset[i]["text"] for i in range(2)] == [["uno" * 200], ["dos"]]


def test_a_shard_replaced_while_it_is_read(tmp_path):
    path = tmp_path / "data/train-0.tar"
    two_samples(path, b"one", b"two" * 200)
    dataset = open_webvid(tmp_path, view="test", allow_missing=True)
    two_samples(path, b"uno" * 200, b"dos")
    assert dataset[1]["missing"] == (f"{path}/b.mp4", "the shard has changed since this process opened it")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content, at: content[:at], "is cut off after {at:,} bytes, without its end mark"),
        (lambda content, at: content[: at + 700], "is no whole tar file: unexpected end of data"),
    ],
)
def test_a_cut_shard_does_not_end_in_silence(tmp_path, damage, message):
    path = tmp_path / "data/train-0.tar"
    content = two_samples(path)
    with tarfile.open(path) as tar:
        at = tar.getmember("b.mp4").offset
    path.write_bytes(damage(content, at))
    with pytest.raises(ValueError, match=rf"train-0\.tar {message.format(at=at)}.*make the shard anew"):
        open_webvid(tmp_path)


@pytest.mark.parametrize("header", [bytes(512), b"x" * 512])
def test_behind_a_damaged_header_the_others_are_read(tmp_path, caplog, header):
    path = tmp_path / "data/train-0.tar"
    content = two_samples(path)
    with tarfile.open(path) as tar:
        at = {name: tar.getmember(name).offset for name in ("a.mp4", "b.txt")}
    damaged = content[: at["b.txt"]] + header + content[at["b.txt"] + 512 :]
    path.write_bytes(damaged)
    for _ in range(2):  # walked through, and from the index
        caplog.clear()
        dataset = open_webvid(tmp_path, view="test", allow_missing=True)
        assert dataset[0]["text"] == ["one"]
        assert dataset[1]["missing"].reason == 'there is no "caption" beside it'
        assert dataset.records.damage == [
            (str(path), f"damaged: no tar header where one should be ({at['b.txt']:,} bytes in)")
        ]
        assert "1 place that cannot be read, 0 names that come again" in caplog.text
        assert str(path) in caplog.text
    path.write_bytes(header + content[512:])
    dataset = open_webvid(tmp_path)
    assert [dataset.records.id(i) for i in range(len(dataset))] == ["b"]
    assert dataset.records.damage[0].reason.endswith("(0 bytes in)")


def test_a_name_that_comes_again_is_counted_and_the_first_read(tmp_path, caplog):
    path = tmp_path / "data/train-0.tar"
    path.parent.mkdir()
    video = worlds.template(20)
    with tarfile.open(path, "w") as tar:
        for name, content in (
            ("a.mp4", video),
            ("a.txt", b"first"),
            ("a.mp4", b"other"),
            ("a.txt", b"second"),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    dataset = open_webvid(tmp_path)
    assert len(dataset) == 1 and dataset[0]["text"] == ["first"]
    assert dataset.records.damage == [
        (f"{path}/{name}", "the shard holds it twice") for name in ("a.mp4", "a.txt")
    ]
    assert "0 places that cannot be read, 2 names that come again" in caplog.text


def test_a_copy_of_a_shard_is_named(tmp_path, caplog):
    two_samples(tmp_path / "data/train-0.tar")
    two_samples(tmp_path / "data/train-1.tar", b"eins zwei")
    open_webvid(tmp_path)
    assert not caplog.messages
    shutil.copy(tmp_path / "data/train-0.tar", tmp_path / "data/train-2.tar")
    open_webvid(tmp_path)
    assert "train-0.tar and train-2.tar hold files of the same names and sizes" in caplog.text


def test_a_shard_alone_that_has_changed_is_indexed_anew(tmp_path, monkeypatch):
    paths = [tmp_path / f"data/train-{i}.tar" for i in range(3)]
    for i, path in enumerate(paths):
        two_samples(path, f"one {i}".encode())
    open_webvid(tmp_path)
    two_samples(paths[1], b"changed" * 90)
    walked = []
    make = shard_index.make
    monkeypatch.setattr(shard_index, "make", lambda path, *state: walked.append(path) or make(path, *state))
    dataset = open_webvid(tmp_path)
    assert walked == [str(paths[1])]
    assert [dataset[i]["text"][0] for i in range(0, 6, 2)] == ["one 0", "changed" * 90, "one 2"]


def test_files_without_a_video_beside_them_are_counted(tmp_path, caplog):
    video = worlds.template(20)
    files = {"0.mp4": video, "0.txt": b"zero", "1.json": b'{"caption": "one"}', "3.video.mp4": video}
    write_tar(tmp_path / "data/train-0.tar", {**files, "4.MP4": video, "4.JSON": b'{"caption": "four"}'})
    for _ in range(2):  # from the tar files, and from the index
        caplog.clear()
        dataset = open_webvid(tmp_path)
        assert [dataset[i]["text"] for i in range(len(dataset))] == [["zero"], ["four"]]
        assert "2 names without a video" in caplog.text and "are left out, e.g. 1, 3" in caplog.text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a\nb.mp4", b"x")], "holds a line break"),
        ([("caf\udce9.mp4", b"x")], "is not in UTF-8"),
    ],
)
def test_names_that_cannot_be_told_apart_or_kept(tmp_path, files, message):
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(ValueError, match=message):
        webvid("train", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"a.json": b'{"caption": 5}'}, "its caption is 5, not a text"),
        ({"a.json": b'{"caption": null}'}, 'there is no "caption" beside it'),
        ({"a.json": b'{"caption": "\\ud83d"}'}, "half a character"),
        ({"a.txt": b"caf\xe9"}, "the text beside it cannot be read"),
        ({"a.json": b"[" * 100_000}, "nested too deep"),
        ({"a.json": b"[1]"}, "the text beside it cannot be read"),
    ],
)
def test_captions_that_are_no_text(tmp_path, beside, reason):
    write_tar(tmp_path / "data/train-0.tar", {"a.mp4": worlds.template(20), **beside})
    dataset = open_webvid(tmp_path, view="test", allow_missing=True)
    assert reason in dataset[0]["missing"].reason


def test_a_text_file_stands_in_for_a_caption_that_is_null(tmp_path):
    files = {
        "a.mp4": worlds.template(20),
        "a.json": b'{"caption": null}',
        "a.txt": "a café".encode("utf-8-sig"),
    }
    write_tar(tmp_path / "data/train-0.tar", files)
    assert open_webvid(tmp_path)[0]["text"] == ["a café"]


@pytest.mark.parametrize(
    "change",
    [{"duration": 1e300}, {"duration": None}, {"words": ["a"]}, {"times": ["x", 1]}, {"words": [1, 2]}],
)
def test_aligned_transcripts_of_another_form(tmp_path, change):
    content = {"words": ["a", "b"], "times": [1, 2], "duration": 20, "problems": [], **change}
    files = {"x.mp4": worlds.template(30), "x.json": json.dumps(content).encode()}
    write_tar(tmp_path / "data/train-0.tar", files)
    shards = {**options(tmp_path), "view": "test", "allow_missing": True}
    dataset = build_dataset("yttemporal", "train", format="webdataset", **shards)
    assert dataset[0]["missing"].reason.startswith("transcript: ")
