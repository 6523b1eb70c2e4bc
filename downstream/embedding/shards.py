"""A list of videos embedded by many machines that share a disk and nothing else, each a shard of it."""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from data_loader.failures import Failure
from downstream.embedding.clips import Clip
from downstream.feature_files import FeatureTable, has_features, load_features
from downstream.inputs.video_lists import VideoList
from utils.files import write_text
from utils.text import counted

NAME = re.compile(r"(\d+)-of-(\d+)\.json")


class Shard(NamedTuple):
    """Part `number` of a list, from 1 to `total`: every total-th file, with all its spans."""

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """ "3/16". Raises ArgumentTypeError with what to write."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if not match:
            raise argparse.ArgumentTypeError(f"{text!r} is no shard K/N, such as 3/16")
        number, total = map(int, match.groups())
        if not 1 <= number <= total:
            raise argparse.ArgumentTypeError(
                f"{text}: shards are counted from 1, as 1/N to N/N (sbatch --array=1-N); to start some of an "
                "array again, write its N out"
            )
        return cls(number, total)

    def __str__(self) -> str:
        return f"{self.number}-of-{self.total}"

    def clips(self, listed: VideoList) -> list[Clip]:
        files = dict.fromkeys(clip.path for clip in listed.clips)
        ours = set(list(files)[self.number - 1 :: self.total])
        return [clip for clip in listed.clips if clip.path in ours]


@dataclass(frozen=True)
class ShardFiles:
    """OUTPUT.shards/K-of-N.safetensors, the vectors of a shard, and K-of-N.json, what it is a shard of.

    facts: "list_sha256" and "settings" are to be the same for all shards of an output. "rows": of each vector
    the row of the list, "failed": why others are missing; both come when the shard is complete. Vectors
    that the table has from before, of videos that cannot be read now, come before those of "rows".
    """

    folder: Path
    shard: Shard
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, output: Path, shard: Shard, listed: VideoList, settings: Mapping[str, Any]) -> Self:
        """The files of a shard that is to be made."""
        facts = {"list_sha256": listed.sha256, "settings": json.loads(json.dumps(settings))}
        return cls(shards_folder(output), shard, facts)

    @property
    def table(self) -> Path:
        return self.folder / f"{self.shard}.safetensors"

    @property
    def about(self) -> Path:
        return self.folder / f"{self.shard}.json"

    def check(self, other: Self) -> None:
        """Raises ValueError where two are no shards of one list, cut and embedded in the same way."""
        advice = "choose another --output, or delete the folder"
        if other.shard.total != self.shard.total:
            total = other.shard.total
            raise ValueError(
                f"{other.about} is a shard of {total}, {self.about.name} of {self.shard.total}; "
                f"to start some of an array again write its N out, --shard {min(3, total)}/{total}. "
                f"Else {advice}"
            )
        if other.facts["list_sha256"] != self.facts["list_sha256"]:
            raise ValueError(
                f"{other.about} is of another list of videos than {self.about.name}: has it changed, or a "
                f"folder that it names? All shards need the same; {advice}"
            )
        theirs, ours = other.facts["settings"], self.facts["settings"]
        different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        if different:
            changes = ", ".join(f"{key} {theirs.get(key)!r} (here {ours.get(key)!r})" for key in different)
            raise ValueError(f"{other.about} was made with other settings: {changes}; {advice}")

    def begin(self) -> None:
        """Say what is being made; not complete. Raises WriteError."""
        write_text(json.dumps({"shard": str(self.shard), **self.facts}), self.about)

    def complete(self, rows: Sequence[int], failed: Sequence[Failure]) -> None:
        """Raises WriteError."""
        facts = {"shard": str(self.shard), **self.facts, "rows": list(rows), "failed": list(failed)}
        write_text(json.dumps(facts), self.about)

    def load(self, without: Sequence[str] = ()) -> FeatureTable | None:
        """The vectors of "rows", in their order; None for none. Raises ValueError where they are gone."""
        rows = self.facts["rows"]
        if not rows:
            return None
        if not has_features(self.table):
            raise ValueError(
                f"{self.table} is missing; run --shard {self.shard.number}/{self.shard.total} again"
            )
        table = load_features(self.table, without)
        if len(table) < len(rows) or table.metadata != self.facts["settings"]:
            raise ValueError(
                f"{self.table} does not belong to {self.about.name}; delete it, and run "
                f"--shard {self.shard.number}/{self.shard.total} again"
            )
        return table.take(range(len(table) - len(rows), len(table)))


def shards_folder(output: Path) -> Path:
    return output.with_name(f"{output.name}.shards")


def read_shards(folder: Path) -> list[ShardFiles]:
    """Those that have been begun, by number. Raises ValueError for what is no such file."""
    found = []
    for path in folder.glob("*-of-*.json"):
        if not (match := NAME.fullmatch(path.name)):
            continue
        shard = Shard(*map(int, match.groups()))
        try:
            facts = json.loads(path.read_bytes())
            if facts["shard"] != str(shard) or not isinstance(facts["settings"], dict):
                raise ValueError(f"it is of {facts['shard']}")
            if not all(type(row) is int for row in facts.get("rows", [])):
                raise ValueError("its rows are no whole numbers")
            if "rows" in facts:
                facts["failed"] = [Failure(*map(str, failure)) for failure in facts["failed"]]
            facts["list_sha256"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path} does not say what {shard} is a shard of ({error!r}); delete it, run the shard again"
            ) from error
        found.append(ShardFiles(folder, shard, facts))
    return sorted(found, key=lambda files: files.shard)


def complete_shards(output: Path) -> list[ShardFiles]:
    """All shards of an output. Raises ValueError where they are not complete or do not go together."""
    folder = shards_folder(output)
    shards = read_shards(folder)
    if not shards:
        raise ValueError(
            f"there are no shards in {folder}: make them with --shard 1/N to N/N and this --output"
        )
    for other in shards[1:]:
        shards[0].check(other)
    total = shards[0].shard.total
    there = {files.shard.number for files in shards if "rows" in files.facts}
    missing = [number for number in range(1, total + 1) if number not in there]
    if missing:
        shown = ", ".join(f"{number}/{total}" for number in missing[:20]) + (", …" if missing[20:] else "")
        raise ValueError(
            f"{counted(len(missing), 'shards')} of {total} in {folder} not complete, with --shard {shown}: "
            "run these, and each goes on where it was"
        )
    rows = [row for files in shards for row in set(files.facts["rows"])]
    if len(set(rows)) < len(rows):
        raise ValueError(f"two shards in {folder} hold vectors of the same row of the list; make them anew")
    return shards
