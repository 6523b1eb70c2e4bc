"""The data sets by their names in a config."""

import difflib
import inspect
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from data_loader.dataset import VideoDataset
from data_loader.lists import need_folder, prepare_hint
from data_loader.records import Records
from data_loader.video.sources import is_url

SPLITS = ("train", "val", "test")

# Each a function of the split, the folder of the videos and that of the lists; imported when asked for.
DATASETS = {
    "yttemporal": "data_loader.yttemporal:yttemporal",
    "webvid": "data_loader.captions:webvid",
    "msrvtt": "data_loader.msrvtt:msrvtt",
    "didemo": "data_loader.captions:didemo",
    "lsmdc": "data_loader.captions:lsmdc",
    "csv": "data_loader.captions:csv",
    "narrated": "data_loader.yttemporal:narrated",
    "hmdb51": "data_loader.labels:hmdb51",
    "ucf101": "data_loader.labels:ucf101",
    "k400": "data_loader.labels:k400",
    "labels": "data_loader.own_labels:labels",
    "ssv2": "data_loader.multiple_choice:ssv2",
}
SHARDED = {
    "yttemporal": "data_loader.shards:yttemporal",
    "narrated": "data_loader.shards:narrated",
    "webvid": "data_loader.shards:webvid",
    "csv": "data_loader.shards:captioned",
    "msrvtt": "data_loader.shards:captioned",
    "didemo": "data_loader.shards:captioned",
}
ALIASES = {"ssv2mc": "ssv2", "kinetics": "k400", "kinetics400": "k400", "hmdb": "hmdb51", "ucf": "ucf101"}


def build_dataset(
    type: str,
    split: str,
    *,
    name: str | None = None,
    root: str | Path | None = None,
    meta: str | Path = "meta_data",
    format: str = "files",
    view: str | None = None,
    **options: Any,
) -> VideoDataset:
    """A data set by its name in a config, in which capitals and '-' do not matter: "msrvtt", "MSR-VTT".

    Args:
        name: of the set, where several are of one type; samples of two sets differ by it.
        split: which records, "train", "val" or "test". view: with which clips, see `VideoDataset`; those of
            the split by default. Training records with test clips are those of a linear probe.
        root: the folder of the videos, or the URL of the folder of the shards. meta: the folder of the lists.
        format: "files", or "webdataset" for the shards that `python -m data_loader.prepare shards` writes.
        options: those of `VideoDataset` (num_frames, image_size, mask_ratio, num_patches, reader, timeout,
            cache_mb, seed, allow_missing, transform) and those of the data set itself (MSR-VTT's cut, …).

    Raises:
        ValueError: an unknown name, split or option, or a list that is not as it should be.
        FileNotFoundError: a folder or list is missing; the message says how to get it.
    """
    kind = type.lower().replace("-", "").replace("_", "")
    kind = ALIASES.get(kind, kind)
    if kind not in DATASETS:
        close = difflib.get_close_matches(kind, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(DATASETS)}"
        raise ValueError(f"unknown data set {type!r}; {hint}")
    if format not in ("files", "webdataset") or (format == "webdataset" and kind not in SHARDED):
        raise ValueError(f"data set {type!r} has no format {format!r}; shards are for {', '.join(SHARDED)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    read: Callable[..., Records] = resolve_name((DATASETS if format == "files" else SHARDED)[kind])
    own = [key for key in inspect.signature(read).parameters if key not in ("split", "root", "meta")]
    of_clips = {key: value for key, value in options.items() if key not in own}
    known = [*own, *inspect.signature(VideoDataset).parameters]
    if unknown := [key for key in of_clips if key not in known or key in ("records", "name")]:
        close = difflib.get_close_matches(unknown[0], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"its own are {', '.join(own) or 'none'}"
        raise ValueError(f"data set {type!r} has no option {unknown[0]!r}; {hint}")
    if root is None:
        raise ValueError(f"data set {type!r} needs a 'root', the folder of its videos")
    meta = Path(meta)
    if is_url(str(root)):
        if format == "files":
            raise ValueError(f'{root}: behind a URL there are shards alone: "format": "webdataset"')
        records = read(split, root, meta, **{key: options[key] for key in own if key in options})
        return VideoDataset(records, view or split, name=name or kind, **of_clips)
    root = Path(root)
    need_folder(
        root,
        f'the data of {kind}; put it there or set its "root" in the config',
        "" if kind in ("csv", "narrated", "labels") else prepare_hint(kind, "its lists"),
    )
    records = read(split, root, meta, **{key: options[key] for key in own if key in options})
    return VideoDataset(records, view or split, name=name or kind, **of_clips)
