"""What stands beside a video in a tar file, as WebDataset has it: a.json and a.txt with a.mp4."""

import json
import os
from collections.abc import Sequence
from itertools import groupby

from data_loader.video import VideoReadError
from data_loader.video.sources import Part, open_source, split_member, tar_members

SIDECARS = ("json", "txt")
MOST_BYTES = 2**20  # of one


def read_sidecars(videos: Sequence[str]) -> dict[str, list[str]]:
    """Columns "json", as it stands there, and "txt", of those that any video has; "" where one has none.

    Raises ValueError, which names the file: it is no JSON, no UTF-8, over a MiB, or cannot be read; or none
    of the videos has any.
    """
    columns: dict[str, list[str]] = {ending: [""] * len(videos) for ending in SIDECARS}
    members = [(i, member) for i, video in enumerate(videos) if (member := split_member(video))]
    for archive, of_archive in groupby(members, key=lambda item: item[1][0]):
        try:
            places = tar_members(archive)
            with open_source(archive) as file:
                for i, (_, name) in of_archive:
                    for ending, column in columns.items():
                        beside = f"{os.path.splitext(name)[0]}.{ending}"
                        if place := places.get(beside):
                            if place.size > MOST_BYTES:
                                raise ValueError(
                                    f"{archive}/{beside} has {place.size} bytes, over {MOST_BYTES}"
                                )
                            column[i] = _text(f"{archive}/{beside}", Part(file, place).read())
        except (VideoReadError, OSError) as error:
            raise ValueError(f"what stands beside the videos cannot be read: {error}") from error
    found = {ending: column for ending, column in columns.items() if any(column)}
    if not found:
        raise ValueError(
            "no .json and no .txt stands beside any of these videos in a tar file: leave out --sidecars"
        )
    return found


def _text(place: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig").strip()
        if text and place.endswith(".json"):
            json.loads(text)
    except ValueError as error:
        kind = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
        raise ValueError(f"{place} is no {kind}: {error}") from error
    if "\0" in text:  # which not all formats of features keep
        raise ValueError(f"{place} holds a zero byte")
    return text
