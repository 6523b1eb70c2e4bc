"""The files in which captions on spans of long videos are published, read as rows one after another."""

import ast
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from data_loader.lists import need_file, need_text, read_json, read_table
from data_loader.prepare.formats import caption_of, mapping
from data_loader.prepare.yttemporal import read_json_lines
from data_loader.spans import parse_seconds

PANDA_COLUMNS = ("videoID", "timestamp", "caption", "matching_score")


class SpanRow(NamedTuple):
    """A caption of a video between two times, as they are written, and how well it fits (None: not said)."""

    video: str
    text: str
    start: Any
    end: Any
    score: float | None
    where: str


def internvid_rows(path: Path) -> Iterator[SpanRow]:
    """json lines {YoutubeID, Start_timestamp, End_timestamp, Caption, UMT_Score}."""
    for number, entry in read_json_lines(path, "captions of InternVid"):
        where = f"{path}, line {number}"
        entry = mapping(entry, where, "YoutubeID", "Start_timestamp", "End_timestamp", "Caption")
        yield SpanRow(
            need_text(entry["YoutubeID"], f"{where}, YoutubeID"),
            caption_of(entry["Caption"], f"{where}, Caption"),
            entry["Start_timestamp"],
            entry["End_timestamp"],
            score_of(entry.get("UMT_Score"), f"{where}, UMT_Score"),
            where,
        )


def panda70m_rows(path: Path) -> Iterator[SpanRow]:
    """A csv with a video a row; timestamp, caption and matching_score are lists, as Python writes them."""
    need_file(path, "captions of Panda-70M")
    try:
        if absent := [name for name in PANDA_COLUMNS if name not in pd.read_csv(path, nrows=0).columns]:
            raise ValueError(f"{path} has no column {absent[0]!r}; one of Panda-70M has {PANDA_COLUMNS}")
        parts = pd.read_csv(
            path, usecols=list(PANDA_COLUMNS), dtype=str, keep_default_na=False, chunksize=10_000
        )
        for part in parts:
            for row, video, *cells in part[list(PANDA_COLUMNS)].itertuples(name=None):
                where = f"{path}, row {row + 1} ({video})"
                spans, captions, scores = (
                    _python_list(cell, f"{where}, {column}")
                    for cell, column in zip(cells, PANDA_COLUMNS[1:], strict=True)
                )
                if not len(spans) == len(captions) == len(scores):
                    raise ValueError(
                        f"{where}: {len(spans)} times, {len(captions)} captions and {len(scores)} scores"
                    )
                for span, caption, score in zip(spans, captions, scores, strict=True):
                    if not isinstance(span, list) or len(span) != 2:
                        raise ValueError(f"{where}: {span!r} is no [start, end]")
                    score = score_of(score, f"{where}, matching_score")
                    text, (start, end) = caption_of(caption, f"{where}, caption"), span
                    yield SpanRow(video, text, start, end, score, where)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no csv of Panda-70M: {error}") from error


def _python_list(cell: str, where: str) -> list[Any]:
    try:
        value = ast.literal_eval(cell)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: {cell[:80]!r} is no list") from error
    if not isinstance(value, list):
        raise ValueError(f"{where}: {cell[:80]!r} is no list")
    return value


def howto100m_videos(path: Path) -> Iterator[tuple[str, list[tuple[Any, Any, str]]]]:
    """(video, its (start, end, text)) of {video: {start: […], end: […], text: […]}}, or of a folder with a
    csv a video. The former has gigabytes: it is read a video at a time."""
    if path.is_dir():
        for file in sorted(path.rglob("*.csv")):
            table = read_table(file, "captions of HowTo100M", sep=",", join_lines=True)
            starts, ends = table.column("start"), table.column("end")
            texts = table.column("text", may_be_empty=True)
            yield file.stem, list(zip(starts, ends, texts, strict=True))
        return
    need_file(path, "captions of HowTo100M, {video: {start, end, text}}")
    ijson = import_ijson()
    try:
        with open(path, "rb") as content:
            for video, entry in ijson.kvitems(content, "", use_float=True):
                yield video, _lines_of(entry, f"{path}: {video}")
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no JSON of HowTo100M: {error}") from error


def _lines_of(entry: Any, where: str) -> list[tuple[Any, Any, str]]:
    lists = [mapping(entry, where, "start", "end", "text")[key] for key in ("start", "end", "text")]
    if not all(isinstance(each, list) for each in lists) or len({len(each) for each in lists}) != 1:
        raise ValueError(f"{where}: start, end and text are no lists of the same length")
    return list(zip(*lists, strict=True))


def howto100m_rows(path: Path) -> Iterator[SpanRow]:
    for video, lines in howto100m_videos(path):
        for number, (start, end, text) in enumerate(lines):
            where = f"{path}: line {number} of {video}"
            yield SpanRow(video, caption_of(text, where), start, end, None, where)


def import_ijson() -> Any:
    """Raises ValueError with what to install."""
    try:
        import ijson
    except ImportError as error:
        raise ValueError("HowTo100M's JSON needs the package ijson: pip install ijson") from error
    return ijson


def vript_rows(path: Path, cuts: Path | None) -> Iterator[SpanRow]:
    """Scenes {clip_id, caption: {content}}, see `_vript_scenes`.

    cuts: a folder with <video>_cut_meta.json, which say from when to when a scene lasts; without it a row is
    of the scene's own file, whole.
    """
    times = {} if cuts is None else _cut_times(cuts)
    for where, scene in _vript_scenes(path):
        clip = need_text(mapping(scene, where, "clip_id", "caption")["clip_id"], f"{where}, clip_id")
        caption = mapping(scene["caption"], f"{where}, caption", "content")["content"]
        text = caption_of(caption, f"{where}, content")
        if cuts is None:
            yield SpanRow(clip, text, None, None, None, where)
            continue
        if clip not in times:
            raise ValueError(f"{where}: no _cut_meta.json below {cuts} says when {clip} is")
        yield SpanRow(clip.rpartition("-Scene-")[0], text, *times[clip], None, where)


def _vript_scenes(path: Path) -> Iterator[tuple[str, Any]]:
    """(where it stands, scene) of vript_{long,short}_videos_captions.jsonl, which has a scene a line, or of a
    folder of <video>_caption.json: {data: {<scene>: {…}}}."""
    if path.is_file():
        for number, scene in read_json_lines(path, "captions of Vript"):
            yield f"{path}, line {number}", scene
        return
    files = sorted(path.rglob("*_caption.json"))
    if not files:
        raise FileNotFoundError(f"{path} holds no <video>_caption.json of Vript")
    for file in files:
        scenes = mapping(mapping(read_json(file, "captions of Vript"), str(file), "data")["data"], str(file))
        for name, scene in scenes.items():
            yield f"{file}: {name}", scene


def _cut_times(folder: Path) -> dict[str, tuple[Any, Any]]:
    """When each scene is, by its clip_id."""
    files = sorted(folder.rglob("*_cut_meta.json"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no <video>_cut_meta.json of Vript")
    times: dict[str, tuple[Any, Any]] = {}
    for file in files:
        found = dict(_scenes(read_json(file, "scenes of Vript")))
        if not found:
            raise ValueError(
                f"{file}: nothing in it has the start (start, start_time) and end (end, end_time) of a scene "
                f"that its key or clip_id names: {json.dumps(read_json(file, 'scenes of Vript'))[:200]}"
            )
        times |= found
    return times


def _scenes(value: Any, name: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """(clip_id, (start, end)) wherever they stand in nested objects and lists.

    The published files are {clips: [{clip_id: "<video>-Scene-001.mp4", …}]}: the name of the scene's file,
    where captions have it without .mp4. Their times are documented as start, end and duration of a scene, but
    not under which keys.
    """
    if isinstance(value, list):
        for entry in value:
            yield from _scenes(entry)
    if not isinstance(value, dict):
        return
    clip = value.get("clip_id", name)
    start, end = (value.get(key, value.get(f"{key}_time")) for key in ("start", "end"))
    if isinstance(clip, str) and "-Scene-" in clip and start is not None and end is not None:
        yield clip.removesuffix(".mp4"), (start, end)
        return
    for key, entry in value.items():
        yield from _scenes(entry, key)


def score_of(value: Any, where: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where} is {value!r}, no number")
    return None if math.isnan(value) else float(value)


def span_of(row: SpanRow) -> tuple[float | None, float | None]:
    """Its times in seconds. Raises ValueError, which names the row."""
    try:
        return parse_seconds(row.start), parse_seconds(row.end)
    except ValueError as error:
        raise ValueError(f"{row.where}: {error}") from error
