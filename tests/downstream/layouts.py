"""Tiny videos in the layouts of the real data sets, for whole evaluations."""

import json
import pickle
from pathlib import Path

import av
import numpy as np

QUERIES = [
    "a dog runs",
    "a red car",
    "someone cooks rice",
    "the sea at night",
    "two people talk",
    "a cat on a wall",
]


def write_video(
    path: Path,
    seed: int,
    frames: int = 20,
    size: tuple[int, int] = (48, 64),
    rate: int = 10,
    first_frame: int = 0,
) -> Path:
    """Coloured squares that change slowly over time: every file and every frame gives another embedding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    first, last = rng.integers(0, 256, (2, 4, 4, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = *size, "yuv420p", 2_000_000
        for t in np.linspace(0, 1, frames) * (1 - 0.004 * first_frame):
            small = ((1 - t) * first + t * last).astype(np.uint8)
            picture = np.kron(small, np.ones((size[0] // 4, size[1] // 4, 1), dtype=np.uint8))
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"))
            )
        container.mux(stream.encode())
    return path


def h264(path: Path, seed: int) -> Path:
    """What browsers play."""
    write_video(path.with_suffix(".raw.mp4"), seed, frames=60)
    with av.open(str(path.with_suffix(".raw.mp4"))) as given, av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in given.decode(video=0):
            out.mux(stream.encode(frame.reformat(format="yuv420p")))
        out.mux(stream.encode())
    path.with_suffix(".raw.mp4").unlink()
    return path


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def msrvtt(root: Path, meta: Path) -> list[str]:
    """Five videos, two captions each; caption 1 is the query of even ones, 0 of odd ones. Returns those."""
    names = [f"video{i}" for i in range(5)]
    annotations, index = [], {}
    for i, name in enumerate(names):
        write_video(root / "videos/all" / f"{name}.mp4", seed=i)
        index[name] = (i + 1) % 2
        texts = ["something else", QUERIES[i]] if index[name] else [QUERIES[i], "something else"]
        annotations += [{"image_id": name, "caption": text} for text in texts]
    lists = root / "high-quality/structured-symlinks"
    for name in ("train", "val"):
        write_text(lists / f"{name}_list_jsfusion.txt", "".join(f"{name}\n" for name in reversed(names)))
    (lists / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(index))
    write_text(meta / "msrvtt/MSR_VTT.json", json.dumps({"annotations": annotations}))
    return QUERIES[:5]


def didemo(root: Path, meta: Path) -> None:
    """Four videos, the second one with two captions."""
    rows = ["caption\tpath"]
    for i, caption in enumerate(QUERIES[:4]):
        write_video(root / f"clips/v{i}.mp4", seed=10 + i)
        rows.append(f"{caption}\tclips/v{i}.mp4")
    rows.append(f"{QUERIES[4]}\tclips/v1.mp4")
    write_text(meta / "didemo/DiDeMo_test.tsv", "\n".join(rows) + "\n")


def lsmdc(root: Path, meta: Path) -> None:
    rows = []
    for i, caption in enumerate(QUERIES[:3]):
        name = f"1001_Some_Film_00.00.{i:02d}.000-00.00.{i + 1:02d}.000"
        write_video(root / "1001_Some_Film" / f"{name}.avi", seed=20 + i)
        rows.append(f"{name}\t0\t1\t{caption}")
    write_text(meta / "lsmdc/LSMDC16_challenge_1000_publictect.csv", "\n".join(rows) + "\n")


CLASSES = ["jumps", "swims", "plays chess"]


def probe_lists(root: Path, meta: Path, clips: int = 6) -> None:
    """HMDB-51 with a training list too: two classes, told apart by their colours, `clips` of each."""
    for split, first, number in (("train", 0, clips), ("test", 100, 3)):
        rows = ["path\tlabel"]
        for label, text in enumerate(CLASSES[:2]):
            for i in range(number):
                name = f"{text}/{split}_source{i}_0.avi"
                write_video(root / name, seed=label, first_frame=first + i)
                rows.append(f"{name}\t{label + 1}")
        write_text(meta / f"hmdb51/prompt/split_1_{split}_list.tsv", "\n".join(rows) + "\n")
    write_text(
        meta / "hmdb51/prompt/label2id.json", json.dumps({text: i for i, text in enumerate(CLASSES[:2])})
    )


def recognition(name: str, root: Path, meta: Path) -> list[int]:
    """Six videos of three classes in the layout of hmdb51, ucf101 or k400. Returns their labels from 0."""
    lists = {
        "hmdb51": ("split_1_test_list.tsv", "path\tlabel"),
        "ucf101": ("testlist01_new.tsv", "path\tlabel"),
        "k400": ("kinetics400_val_list_videos.tsv", "path\tlabel"),
    }
    file, header = lists[name]
    rows, labels = [header], [0, 1, 2, 2, 1, 0]
    for i, label in enumerate(labels):
        if name == "k400":
            write_video(root / "videos_val" / f"clip{i}.mp4", seed=30 + i)
            rows.append(f"{CLASSES[label]}/clip{i}.mkv\t{label}")
        else:
            write_video(root / CLASSES[label] / f"clip{i}.avi", seed=30 + i)
            rows.append(f"{CLASSES[label]}/clip{i}.avi\t{label + 1}")
    folder = meta / name / "prompt"
    write_text(folder / file, "\n".join(rows) + "\n")
    write_text(folder / "label2id.json", json.dumps({text: i for i, text in enumerate(CLASSES)}))
    return labels


def ssv2(root: Path, meta: Path) -> list[dict]:
    """Four videos, each with its own three options. Returns the questions."""
    questions = []
    for i in range(4):
        write_video(root / f"videos/{i}.webm.mp4", seed=40 + i)
        options = [QUERIES[(i + k) % len(QUERIES)] for k in range(3)]
        questions.append({"clip_name": f"{i}.webm.mp4", "options": options, "answer": i % 3})
    write_text(meta / "ssv2/mc/val.jsonl", "".join(json.dumps(question) + "\n" for question in questions))
    return questions


def own_folder(folder: Path, clips: int = 2, **split_seeds: int) -> None:
    """`folder`/<split>/<class>/<video>: two classes of different colours; each split has its own frames."""
    for split, first in (split_seeds or {"": 0}).items():
        for label, name in enumerate(("brush_hair", "TaiChi")):
            for i in range(clips):
                write_video(folder / split / name / f"{i}.mp4", seed=label, first_frame=first + i)
