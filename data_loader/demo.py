"""Generate the demo's data sets, in the layouts of the real ones.

YT-Temporal: four narrated events a video, whose order the sort head has to find; the same with transcripts as
.vtt, .srt, json3 and Whisper's JSON, and as captioned spans (meta_data/narrated_*.tsv, spans_*.tsv). WebVid:
three events or a single one with a caption. MSR-VTT: text-to-video search among 100. HMDB-51: four classes
that differ in motion alone. Both have training videos, for probes and fine-tuning. SSV2-MC: options that
differ only in the order of the same three events.

    python -m data_loader.demo --root data/demo --scale 0.05
"""

import itertools
import json
import pickle
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from joblib import cpu_count
from tqdm import tqdm

from data_loader.demo_narration import FORMS, as_transcript, narration
from data_loader.demo_world import (
    DURATION,
    FAMILIAR,
    HELD_OUT,
    MOTIONS,
    Event,
    draw_events,
    draw_frames,
    draw_palette_stories,
    draw_single_event,
    write_video,
)
from utils.commands import CommandParser
from utils.errors import one_line_interrupts

WORLD = 5  # counted up whenever videos or captions change, so that older data is made anew
SIZES = {
    "yttemporal_train": 500,
    "yttemporal_val": 100,
    "webvid_train": 1000,
    "webvid_val": 60,
    "msrvtt": 100,
    "hmdb51": 100,
    "ssv2": 100,
    "hmdb51_train": 160,
    "msrvtt_finetuning": 200,
}
SPAN_COLUMNS = ("path", "caption", "start", "end")
ORDERS = 3  # WebVid training videos that show the same events, each in another order


@dataclass(frozen=True)
class Video:
    """What one file shows, and the seed that its pixels are drawn from."""

    path: Path
    events: tuple[Event, ...]
    seed: tuple[int, ...]


def generate(root: Path, seed: int = 0, scale: float = 1.0, workers: int | None = None) -> bool:
    """Write all the demo's data below `root`: videos in `root/<data set>`, lists in `root/meta_data`.

    Args:
        root: a folder of its own; a finished one of the same seed and scale is kept as it is.
        scale: a factor on the number of videos, for trying things out quickly.
        workers: processes that draw and encode; as many as there are cores if None.

    Returns:
        Whether anything was generated.

    Raises:
        ValueError: `root` holds something that is not demo data.
    """
    done, settings = root / "demo.json", {"world": WORLD, "seed": seed, "scale": scale, "sizes": SIZES}
    if done.is_file() and json.loads(done.read_text()) == settings:
        return False
    marker = root / ".demo-data"  # no folder without it is ever emptied
    if root.exists() and any(root.iterdir()):
        if not marker.is_file():
            raise ValueError(f"{root} exists and holds something other than demo data; name another folder")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    marker.touch()
    videos = lay_out(root, seed, scale)
    with ProcessPoolExecutor(workers or cpu_count()) as pool:
        drawn = pool.map(_draw, videos, chunksize=16)
        for _ in tqdm(drawn, total=len(videos), desc="demo videos", unit="file"):
            pass
    done.write_text(json.dumps(settings))
    return True


def lay_out(root: Path, seed: int, scale: float) -> list[Video]:
    """Write the lists, captions and transcripts of all data sets, and say which videos they need."""
    (root / "meta_data").mkdir()
    makers: dict[str, Callable[..., list[Video]]] = {
        "yttemporal_train": partial(_yttemporal, split="train"),
        "yttemporal_val": partial(_yttemporal, split="val"),
        "webvid_train": partial(_webvid, split="train"),
        "webvid_val": partial(_webvid, split="val"),
        "msrvtt": partial(_msrvtt, split="test"),
        "hmdb51": partial(_hmdb51, split="test"),
        "ssv2": _ssv2,
        "hmdb51_train": partial(_hmdb51, split="train"),
        "msrvtt_finetuning": partial(_msrvtt, split="train"),
    }
    videos: list[Video] = []
    for number, (name, make) in enumerate(makers.items()):
        least = 2 * len(MOTIONS) if name == "hmdb51_train" else 4  # a probe holds one of each class out
        count = max(least, round(SIZES[name] * scale))
        videos += make(root, np.random.default_rng([seed, number]), count, (seed, number))
    return videos


def _draw(video: Video) -> None:
    write_video(video.path, draw_frames(np.random.default_rng(video.seed), list(video.events)))


def _caption(events: Sequence[Event]) -> str:
    return _join(event.text for event in events)


def _vague_caption(events: Sequence[Event]) -> str:
    """A caption that leaves out the looks of a single event, or motions and order of several."""
    return f"something {events[0].motion}" if len(events) == 1 else _looks_caption(events)


def _looks_caption(events: Sequence[Event]) -> str:
    return " and ".join(event.look for event in events)


def _join(texts: Iterable[str]) -> str:
    return " then ".join(texts)


def _yttemporal(root: Path, rng: np.random.Generator, count: int, seed: tuple, split: str) -> list[Video]:
    """Narrated videos of four events, with raw subtitles as a recogniser hears them and a denoised text.

    Beside YT-Temporal's own list there are one with transcripts in other forms ("narrated"), and one of the
    events as captioned spans ("csv").
    """
    names, transcripts, videos = [], [], []
    spans: list[tuple[str, str, float, float]] = []
    folder = root / "YTTemporal/videos"
    for i in range(count):
        events = draw_events(rng, 4, held_out=split == "val")
        stem, form = f"{split}{i:04d}", FORMS[i % len(FORMS)]
        name, transcript = f"subset_87/data/{stem}.mp4", f"subset_87/transcripts/{stem}{form}"
        said = narration(rng, events)
        put_text(folder / "subset_87/annotations" / f"{stem}.json", json.dumps(said))
        put_text(folder / transcript, as_transcript(said["subtitles"], form))
        names.append(name)
        transcripts.append(transcript)
        lasts = DURATION / len(events)
        spans += [(name, event.text, k * lasts, (k + 1) * lasts) for k, event in enumerate(events)]
        videos.append(Video(folder / name, tuple(events), (*seed, i)))
    for file, table in (
        (f"yttemporal_{split}.csv", {"Name": names}),
        (f"narrated_{split}.tsv", {"path": names, "transcript": transcripts}),
        (
            f"spans_{split}.tsv",
            dict(zip(("path", "caption", "start", "end"), zip(*spans, strict=True), strict=True)),
        ),
    ):
        pd.DataFrame(table).to_csv(root / "meta_data" / file, sep="\t", index=False)
    return videos


def put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _webvid(root: Path, rng: np.random.Generator, count: int, seed: tuple, split: str) -> list[Video]:
    """Three events or a single one a video, and a caption of it; some captions of training are vague."""
    captions, paths, videos = [], [], []
    stories: list[list[Event]] = []
    for i in range(count):
        single = rng.random() < 1 / 3
        if split == "val":
            events = draw_events(rng, 1 if single else 3, held_out=True)
        elif single:
            events = draw_single_event(rng)
        else:
            stories = stories or draw_palette_stories(rng, ORDERS)
            events = stories.pop()
        vague = split == "train" and rng.random() < (0.5 if single else 0.25)
        captions.append(_vague_caption(events) if vague else _caption(events))
        paths.append(f"{i // 1000:03d}/{i:06d}")
        videos.append(Video(root / "WebVid" / split / f"{paths[-1]}.mp4", tuple(events), (*seed, i)))
    table = pd.DataFrame({"caption": captions, "path": paths})
    table.to_csv(root / "meta_data" / f"webvid_{split}.tsv", sep="\t", index=False)
    return videos


def _msrvtt(root: Path, rng: np.random.Generator, count: int, seed: tuple, split: str) -> list[Video]:
    """Two captions a video; no two videos of a split share a caption. Those to fine-tune on are as those of
    the test, where the pickled index names each one's query."""
    annotations: list[dict[str, str]] = []
    index: dict[str, int] = {}
    videos: list[Video] = []
    seen: set[str] = set()
    while len(videos) < count:
        events = draw_events(rng, 3, held_out=True)
        texts = [_caption(events), _looks_caption(events)]
        if texts[1] in seen:
            continue
        seen.add(texts[1])
        name, query = f"{'video' if split == 'test' else split}{len(videos)}", int(rng.integers(2))
        annotations += [{"image_id": name, "caption": text} for text in texts]
        index[name] = query
        videos.append(Video(root / "msrvtt/videos/all" / f"{name}.mp4", tuple(events), (*seed, len(videos))))
    meta, lists = root / "meta_data/msrvtt", root / "msrvtt/high-quality/structured-symlinks"
    for folder in (meta, lists):
        folder.mkdir(parents=True, exist_ok=True)
    captions = meta / "MSR_VTT.json"
    before = json.loads(captions.read_text())["annotations"] if captions.exists() else []
    captions.write_text(json.dumps({"annotations": before + annotations}))
    place = lists / f"{'train' if split == 'train' else 'val'}_list_jsfusion.txt"
    place.write_text("".join(f"{video}\n" for video in index))
    if split == "test":
        (lists / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(index))
    return videos


def _hmdb51(root: Path, rng: np.random.Generator, count: int, seed: tuple, split: str) -> list[Video]:
    """One event a video; the class is its motion. Every class shows the same looks, but each split others."""
    rows, videos = [], []
    looks = HELD_OUT if split == "test" else FAMILIAR
    for i in range(count):
        label = i % len(MOTIONS)
        look = looks[i // len(MOTIONS) % len(looks)]
        name = f"clip{i:04d}.mp4" if split == "test" else f"train{i:04d}.mp4"
        path = f"{MOTIONS[label].replace(' ', '_')}/{name}"
        rows.append({"path": path, "label": label + 1})
        videos.append(Video(root / "hmdb51" / path, (Event(*look, MOTIONS[label]),), (*seed, i)))
    meta = root / "meta_data/hmdb51/prompt"
    meta.mkdir(parents=True, exist_ok=True)
    labels = {motion: i for i, motion in enumerate(MOTIONS)}
    (meta / "label2id.json").write_text(json.dumps(labels))
    pd.DataFrame(rows).to_csv(meta / f"split_1_{split}_list.tsv", sep="\t", index=False)
    return videos


def _ssv2(root: Path, rng: np.random.Generator, count: int, seed: tuple) -> list[Video]:
    """Three events a video; the options are the six orders in which they could have happened."""
    rows, videos = [], []
    for i in range(count):
        events = tuple(draw_events(rng, 3, held_out=True))
        permutations = list(itertools.permutations(events))
        orders = [permutations[k] for k in rng.permutation(len(permutations))]
        name = f"{i}.mp4"
        options = [_caption(order) for order in orders]
        rows.append({"clip_name": name, "options": options, "answer": orders.index(events)})
        videos.append(Video(root / "SSV2/videos" / name, events, (*seed, i)))
    meta = root / "meta_data/ssv2/mc"
    meta.mkdir(parents=True)
    (meta / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return videos


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python -m data_loader.demo", __doc__)
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="folder to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything drawn")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of videos")
    parser.add_argument("--workers", type=int, help="processes that draw and encode (default: one a core)")
    args = parser.parse_args(argv)
    made = generate(args.root, args.seed, args.scale, args.workers)
    print(f"demo data in {args.root}: {'generated' if made else 'already there'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
