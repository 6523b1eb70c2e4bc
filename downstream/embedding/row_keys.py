"""What each row of a table of embeddings is of, by which rows that are there are known again."""

import os
from collections.abc import Collection, Sequence
from typing import Any

from data_loader.video.sources import is_url
from downstream.feature_files import FeatureTable

KEY_COLUMNS = ("path", "size_bytes", "modified_ns", "start", "end")  # of these what the table has

Key = tuple[Any, ...]


def row_keys(table: FeatureTable) -> list[Key]:
    """What each row is of: a text; or file, size, time of last change, and of pieces start and end."""
    names = KEY_COLUMNS if "path" in table.columns else ("text",)
    columns = [table.columns[name] for name in names if name in table.columns]
    plain = [column if isinstance(column, list) else column.tolist() for column in columns]
    return list(zip(*plain, strict=True))


def first_places(keys: Sequence[Key]) -> dict[Key, int]:
    places: dict[Key, int] = {}
    for i, key in enumerate(keys):
        places.setdefault(key, i)
    return places


def moved_files(have: Collection[Key], wanted: Collection[Key]) -> dict[Key, str]:
    """Rows whose file is gone and has its like among the wanted ones -> the path that it has now."""
    if not have or len(next(iter(have))) < 3:  # of texts
        return {}

    def like(key: Key) -> Key:
        return (os.path.basename(key[0]), *key[1:])

    missing: dict[Key, list[Key]] = {}
    for key in dict.fromkeys(wanted):
        if key not in have:
            missing.setdefault(like(key), []).append(key)
    gone: dict[Key, list[Key]] = {}
    for key in have:
        if key[1] < 0 or like(key) not in missing or is_url(key[0]):
            continue
        if not os.path.lexists(key[0]):
            gone.setdefault(like(key), []).append(key)
    # where there are several nobody knows which is which
    return {
        before[0]: missing[name][0][0]
        for name, before in gone.items()
        if len(before) == len(missing[name]) == 1
    }
