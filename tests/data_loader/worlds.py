"""Every data set in its layout, with small generated videos: `root` and `meta` of each lie in one folder."""

import csv
import json
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from tests.data_loader.video_files import write_video

# Of the clips, in pixels. Videos have just the short side that needs no resizing, and a width that decord can
# read: it refuses some small ones, 48 among them, and leaves them to PyAV.
SIZE = 32
COMMON = {"num_frames": 12, "image_size": SIZE}


@cache
def template(num_frames: int) -> bytes:
    """An H.264 file, made once for all tests."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"preset": "ultrafast", "g": "8"}
        return write_video(
            Path(folder) / "video.mp4", num_frames, size=(64, 38), options=options
        ).read_bytes()


def put_video(path: Path, num_frames: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(template(num_frames))
    return path


def put_table(path: Path, rows: Iterable[Sequence], header: Sequence[str] | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerows([header, *rows] if header else rows)
    return path


def put_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def put_json(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def options(folder: Path, **more) -> dict:
    """What `build_dataset` needs to open a world."""
    return {"root": folder / "data", "meta": folder / "meta_data", **COMMON, **more}


def transcript(words: Sequence[str], duration: float = 30) -> dict:
    """A word every half second from 0.25 s on."""
    subtitles = [{"word": word, "time": 0.25 + i / 2} for i, word in enumerate(words)]
    return {
        "subtitles": subtitles,
        "denoised": [{"cleanasr": " ".join(words)}],
        "info": {"duration": duration},
    }


def yttemporal(folder: Path, train: int = 6, val: int = 3, duration: float = 30) -> Path:
    """Each video says its words, v<video>w<second half>, throughout its 60 frames."""
    videos = folder / "data/videos"
    for split, count in (("train", train), ("val", val)):
        names = [f"subset_87/data/{split}{i}.mp4" for i in range(count)]
        put_table(folder / f"meta_data/yttemporal_{split}.csv", [[name] for name in names], ["Name"])
        for i, name in enumerate(names):
            put_video(videos / name, 60)
            words = [f"v{i}w{k}" for k in range(int(2 * duration))]
            put_json(videos / f"subset_87/annotations/{split}{i}.json", transcript(words, duration))
    return folder


def webvid(folder: Path, train: int = 8, val: int = 4) -> Path:
    for split, count in (("train", train), ("val", val)):
        rows = [[f'{split} caption {i}, "quoted"', f"{i % 2:03d}/{i}"] for i in range(count)]
        put_table(folder / f"meta_data/webvid_{split}.tsv", rows, ["caption", "path"])
        for i, (_, path) in enumerate(rows):
            put_video(folder / "data" / split / f"{path}.mp4", 20 + i % 5)
    return folder


LISTS = {
    "train_list_jsfusion.txt": ["video2", "video10"],
    "val_list_jsfusion.txt": ["video7", "video0", "video11"],
    "train_list_miech.txt": ["video2"],
    "test_list_miech.txt": ["video0"],
    "train_list_full.txt": ["video2"],
    "val_list_full.txt": ["video7"],
    "test_list_full.txt": ["video11", "video0"],
    "train_list.txt": ["video2"],
    "val_list.txt": ["video10"],
    "public_server_val.txt": ["video7"],
    "public_server_test.txt": ["video11"],
}


def msrvtt(folder: Path) -> Path:
    """Three captions a video."""
    names = ["video2", "video10", "video7", "video0", "video11"]
    annotations = [{"image_id": n, "caption": f"{n} caption {k}"} for k in range(3) for n in names]
    put_json(folder / "meta_data/msrvtt/MSR_VTT.json", {"annotations": annotations})
    lists = folder / "data/high-quality/structured-symlinks"
    lists.mkdir(parents=True)
    for file, videos in LISTS.items():
        (lists / file).write_text("\n".join(videos) + "\n")
    index = {"video7": 2, "video0": 1, "video11": 0}
    (lists / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(index))
    for name in names:
        put_video(folder / f"data/videos/all/{name}.mp4")
    return folder


def didemo(folder: Path) -> Path:
    for split in ("train", "test"):
        rows = [[f"{split} {i}. Then more.", f"{split}/{i}.mp4"] for i in range(3)]
        put_table(folder / f"meta_data/didemo/DiDeMo_{split}.tsv", rows, ["caption", "path"])
        for _, path in rows:
            put_video(folder / "data" / path)
    return folder


CLIPS = ["1001_Flight_00.41.35.189-00.41.45.534", "3009_BATTLE_LA_00.01.02.000-00.01.03.500"]


def lsmdc(folder: Path, header: bool = True) -> Path:
    rows = [[clip, "00.00", "00.01", f"SOMEONE does {i}."] for i, clip in enumerate(CLIPS)]
    path = folder / "meta_data/lsmdc/LSMDC16_challenge_1000_publictect.csv"
    put_table(path, rows, ["clip", "start", "end", "caption"] if header else None)
    for clip in CLIPS:
        film = clip[: clip.index("_00.")]
        put_video(folder / "data" / film / f"{clip}.avi")
    return folder


CLASSES = {"wave": 2, "brush hair": 0, "cartwheel": 1}  # not in the order of their numbers


def hmdb51(folder: Path) -> Path:
    return _labels(folder, "hmdb51", "split_1_train_list.tsv", "split_1_test_list.tsv")


def ucf101(folder: Path) -> Path:
    return _labels(folder, "ucf101", "trainlist01_new.tsv", "testlist01_new.tsv")


def _labels(folder: Path, name: str, train: str, test: str) -> Path:
    meta = folder / f"meta_data/{name}/prompt"
    put_json(meta / "label2id.json", CLASSES)
    for file, count in ((train, 2), (test, 3)):
        rows = [[f"class{i}/{file[:3]}{i}.mp4", i % 3 + 1] for i in range(count)]
        put_table(meta / file, rows, ["path", "label"])
        for path, _ in rows:
            put_video(folder / "data" / path)
    return folder


def k400(folder: Path) -> Path:
    meta = folder / "meta_data/k400/prompt"
    put_json(meta / "label2id.json", CLASSES)
    rows = [["brush hair/a.mp4", 0], ["wave/b.mkv", 2]]
    put_table(meta / "kinetics400_val_list_videos.tsv", rows, ["path", "label"])
    for name in ("a", "b"):
        put_video(folder / f"data/videos_val/{name}.mp4")
    return folder


def ssv2(folder: Path) -> Path:
    path = folder / "meta_data/ssv2/mc/val.jsonl"
    path.parent.mkdir(parents=True)
    rows = [
        {"clip_name": "1.mp4", "options": ["push it", "pull it"], "answer": 1},
        {"clip_name": "2.mp4", "options": ["pull it", "lift it"], "answer": "pull it"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in rows:
        put_video(folder / "data/videos" / row["clip_name"])
    return folder


def break_file(path: Path) -> Path:
    """No video any more."""
    path.write_bytes(b"no video" * 40)
    return path


def copy_world(world: Path, folder: Path) -> Path:
    """A world of one's own to break things in."""
    return Path(shutil.copytree(world, folder / "world"))
