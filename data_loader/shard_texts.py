"""What stands beside a video of a shard as JSON: from a record, and back to what a record has of it."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_loader.lists import need_text
from data_loader.records import Record
from data_loader.spans import Span, following_spans, read_spans
from data_loader.transcripts import read_transcript, transcript_from_json, transcript_to_json


def describe(record: Record) -> dict[str, Any]:
    """What stands beside a video as JSON: captions and span, those of its pieces, or its transcript."""
    if record.transcript is not None:
        return transcript_to_json(record.transcript)
    if record.pieces:
        return {"pieces": [describe(piece) for piece in record.pieces]}
    described: dict[str, Any] = {"caption": record.captions[0]}
    if len(record.captions) > 1:
        described["captions"] = list(record.captions)
    if record.span is not None:
        end = None if record.span.end == math.inf else record.span.end
        described |= {"start": record.span.start, "end": end}
    return described


def caption_of(metadata: dict) -> dict[str, Any]:
    caption = metadata.get("caption")
    if caption is None:
        raise ValueError('there is no "caption" beside it')
    return {"captions": [need_text(caption, "its caption")]}


def texts_of(metadata: dict) -> dict[str, Any]:
    """Captions and span, as `describe` writes them. Raises ValueError."""
    if "pieces" in metadata:
        raise ValueError("it has pieces, of which several are a sample: set num_clips")
    captions = metadata.get("captions", [metadata.get("caption")])
    if not isinstance(captions, list) or not captions or captions == [None]:
        raise ValueError('there is no "caption" beside it')
    contents: dict[str, Any] = {"captions": [need_text(text, "its caption") for text in captions]}
    times = [metadata.get(key) for key in ("start", "end")]
    if times != [None, None]:
        spans = read_spans(times[:1], times[1:], lambda row: "its span")
        contents["span"] = Span(*spans[0].tolist())
    return contents


def pieces_of(metadata: dict, num_clips: int) -> dict[str, Any]:
    """The captioned spans of a video. Raises ValueError: there are not so many that follow one another."""
    pieces = metadata.get("pieces")
    if not isinstance(pieces, list) or not all(isinstance(piece, dict) for piece in pieces):
        raise ValueError('there are no "pieces" beside it: pack the shards with num_clips')
    records = [Record("", Path(), **{"span": Span(), **texts_of(piece)}) for piece in pieces]
    if not records or not len(following_spans(np.array([each.span for each in records]), num_clips)):
        raise ValueError(f"none of its spans are {num_clips} that follow one another (num_clips)")
    return {"pieces": records, "num_clips": num_clips}


def narration_of(metadata: dict, num_clips: int) -> dict[str, Any]:
    transcript = transcript_from_json(metadata) if "words" in metadata else read_transcript(metadata)
    return {"transcript": transcript, "num_clips": num_clips}
