"""From files to batches: readers, frame choice, transforms, data sets and loaders.

dataset = build_dataset("msrvtt", "test", root="data/msrvtt")
loader = build_loader(dataset, batch_size=48, train=False, num_workers=8)
"""

import difflib

from data_loader.base import VideoDataset
from data_loader.captions import LSMDC, CsvDataset, DiDeMo, WebVid
from data_loader.collate import Collate
from data_loader.failures import TooManyUnreadable, UnreadableCounter
from data_loader.labels import HMDB51, UCF101, Kinetics400
from data_loader.loader import EpochSampler, JointLoader, build_loader
from data_loader.msrvtt import MSRVTT
from data_loader.multiple_choice import SSV2MultipleChoice
from data_loader.shards import WebVidShards, YTTemporalShards
from data_loader.yttemporal import YTTemporal

DATASETS: dict[str, type[VideoDataset]] = {
    cls.name: cls
    for cls in (
        YTTemporal,
        WebVid,
        MSRVTT,
        DiDeMo,
        LSMDC,
        CsvDataset,
        HMDB51,
        UCF101,
        Kinetics400,
        SSV2MultipleChoice,
    )
}
SHARDED: dict[str, type[VideoDataset]] = {cls.name: cls for cls in (YTTemporalShards, WebVidShards)}
ALIASES = {"ssv2mc": "ssv2", "kinetics": "k400", "kinetics400": "k400", "hmdb": "hmdb51", "ucf": "ucf101"}


def build_dataset(type: str, split: str, *, format: str = "files", **options) -> VideoDataset:
    """A data set by its name in a config: "yttemporal", "webvid", "msrvtt", ... (capitals and '-' do not
    matter).

    `split` is "train", "val" or "test". `format` is "files", or "webdataset" for the shards that `python -m
    data_loader.prepare shards` writes. The other options are those of `VideoDataset` (root, meta,
    num_frames, image_size, mask_ratio, num_patches, reader, timeout, cache_mb, seed, allow_missing, view)
    and those of the data set itself (MSR-VTT's cut, ...). Raises ValueError for an unknown name or option.
    """
    name = type.lower().replace("-", "").replace("_", "")
    name = ALIASES.get(name, name)
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(DATASETS)}"
        raise ValueError(f"unknown data set {type!r}; {hint}")
    if format not in ("files", "webdataset") or (format == "webdataset" and name not in SHARDED):
        raise ValueError(f"data set {type!r} has no format {format!r}; shards are for {', '.join(SHARDED)}")
    try:
        return (DATASETS if format == "files" else SHARDED)[name](split, **options)
    except TypeError as error:
        if "unexpected keyword argument" in str(error) or "required keyword-only" in str(error):
            raise ValueError(f"data set {type!r}: {error}") from error
        raise


__all__ = [
    "DATASETS",
    "Collate",
    "EpochSampler",
    "JointLoader",
    "TooManyUnreadable",
    "UnreadableCounter",
    "VideoDataset",
    "build_dataset",
    "build_loader",
]
