"""The files in which more sets are published, read as rows: a video, and a caption or label of it."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from data_loader.lists import need_text, numbered_lines, read_json, read_lines, read_table
from data_loader.prepare.labels import kinetics_videos


class Row(NamedTuple):
    """A caption or label of a video, or of its piece from `start` to `end` in seconds."""

    video: str
    text: str
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Source:
    """What a set's site distributes.

    about: what --help says. column: what a row's text is, "caption" or "label".
    splits: each with its annotation file; None where the shared one has it.
    rows: (split, its file, what `shared` read) -> rows. shared: the name and reader of a file for all splits.
    classes: of what `shared` read, in the order of their numbers; None: those of the rows, by the alphabet.
    by_name: videos are found by their names, anywhere below the root; otherwise they are paths.
    rule: what is our inference.
    """

    about: str
    column: str
    splits: dict[str, str | None]
    rows: Callable[[str, Any, Any], Iterable[Row]]
    shared: tuple[str, Callable[[Path], Any]] | None = None
    classes: Callable[[Any], list[str]] | None = None
    by_name: bool = True
    rule: str = ""


def objects(path: Path, what: str, *keys: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, object) of a JSON list of objects that all have these keys."""
    content = read_json(path, what)
    for number, entry in enumerate(content if isinstance(content, list) else [content]):
        if not isinstance(entry, dict) or not set(keys) <= entry.keys():
            raise ValueError(
                f"{path}: entry {number}, {str(entry)[:80]}, is no object with {', '.join(keys)}"
            )
        yield f"{path}: entry {number}", entry


def mapping(value: Any, where: str, *keys: str) -> dict[str, Any]:
    """An object that has these keys. Raises ValueError for anything else."""
    if not isinstance(value, dict) or not set(keys) <= value.keys():
        raise ValueError(
            f"{where}, {str(value)[:80]}, is no object{' with ' + ', '.join(keys) if keys else ''}"
        )
    return value


def caption_of(value: Any, where: str) -> str:
    """A caption, stripped; "" for a blank one. Raises ValueError for anything but a text."""
    blank = isinstance(value, str) and not value.strip()
    return "" if blank else need_text(value, where).strip()


def msvd_captions(path: Path) -> dict[str, list[str]]:
    captions: dict[str, list[str]] = {}
    for number, line in numbered_lines(path, "captions of MSVD, '<video> <caption>' a line"):
        video, _, caption = line.partition(" ")
        if line.startswith("#"):
            continue
        if not caption.strip():
            raise ValueError(f"{path}, line {number}: {line!r} is not '<video> <caption>'")
        captions.setdefault(video, []).append(caption)
    return captions


def msvd_rows(split: str, path: Path, captions: dict[str, list[str]]) -> Iterator[Row]:
    for number, video in numbered_lines(path, f"the {split} videos of MSVD, one a line"):
        if video not in captions:
            raise ValueError(f"{path}, line {number}: {video} has no caption")
        yield from (Row(video, caption) for caption in captions[video])


def activitynet_rows(split: str, path: Path, shared: None) -> Iterator[Row]:
    for video, entry in mapping(read_json(path, "ActivityNet Captions"), str(path)).items():
        sentences = mapping(entry, f"{path}: {video}", "sentences")["sentences"]
        if not isinstance(sentences, list) or not sentences:
            raise ValueError(f"{path}: {video} has no list of sentences")
        texts = [caption_of(text, f"{path}: sentence {i} of {video}") for i, text in enumerate(sentences)]
        yield Row(video, " ".join(filter(None, texts)))


def vatex_rows(split: str, path: Path, shared: None) -> Iterator[Row]:
    for where, entry in objects(path, "captions of VATEX", "videoID", "enCap"):
        video = need_text(entry["videoID"], f"{where}, videoID")
        for i, caption in enumerate(entry["enCap"]):
            yield Row(video, caption_of(caption, f"{where} ({video}), enCap {i}"))


def youcook2_videos(path: Path) -> dict[str, Any]:
    content = mapping(read_json(path, "annotations of YouCook2"), str(path), "database")
    return mapping(content["database"], f"{path}: database")


def youcook2_rows(split: str, path: Path, videos: dict[str, Any]) -> Iterator[Row]:
    subset = {"train": "training", "val": "validation"}[split]
    for video, entry in videos.items():
        if mapping(entry, f"the video {video}", "subset").get("subset") != subset:
            continue
        for i, part in enumerate(mapping(entry, f"the video {video}", "annotations")["annotations"]):
            where = f"annotation {i} of {video}"
            segment = mapping(part, where, "segment", "sentence")["segment"]
            if not isinstance(segment, list) or len(segment) != 2:
                raise ValueError(f"{where}: the segment {segment!r} is not [start, end] in seconds")
            yield Row(video, caption_of(part["sentence"], f"{where}, sentence"), *segment)


def kinetics_rows(split: str, path: Path, shared: None) -> Iterator[Row]:
    table = read_table(path, "videos of Kinetics", sep=",")
    for video, label in zip(kinetics_videos(table), table.column("label"), strict=True):
        yield Row(video.removesuffix(".mp4"), label)


def charades_classes(path: Path) -> dict[str, str]:
    """{"c000": "Holding some clothes", …}"""
    lines = read_lines(path, "the classes of Charades, '<number> <class>' a line")
    return {number: name for number, _, name in (line.partition(" ") for line in lines)}


def charades_rows(split: str, path: Path, names: dict[str, str]) -> Iterator[Row]:
    table = read_table(path, "videos of Charades", sep=",", join_lines=True)
    actions = table.column("actions", may_be_empty=True)
    for row, (video, cell) in enumerate(zip(table.column("id"), actions, strict=True)):
        numbers = dict.fromkeys(action.split(" ")[0] for action in cell.split(";") if action.strip())
        for number in numbers:
            if number not in names:
                raise ValueError(
                    f"{table.where(row)}: the class {number!r} of {video} is none of the classes"
                )
        yield from (Row(video, names[number]) for number in numbers)
        if not numbers:
            yield Row(video, "")


def moments_classes(path: Path) -> list[str]:
    numbers = {}
    for number, line in numbered_lines(path, "the classes of Moments in Time, '<class>,<number>' a line"):
        name, _, place = line.rpartition(",")
        if not name or not place.isdecimal():
            raise ValueError(f"{path}, line {number}: {line!r} is not '<class>,<number>'")
        numbers[name] = int(place)
    return sorted(numbers, key=lambda name: numbers[name])


def moments_rows(split: str, path: Path, classes: list[str]) -> Iterator[Row]:
    table = read_table(path, "videos of Moments in Time", sep=",", header=False)
    folder = {"train": "training", "val": "validation"}[split]
    for row, (video, label) in enumerate(zip(table.column(0), table.column(1), strict=True)):
        if label not in classes:
            raise ValueError(f"{table.where(row)}: the class {label!r} is none of the {len(classes)}")
        yield Row(f"{folder}/{video}", plus_as_space(label))


def plus_as_space(name: str) -> str:
    """adult+female+singing -> adult female singing."""
    return name.replace("+", " ")


def diving48_classes(path: Path) -> list[str]:
    dives = read_json(path, "the classes of Diving48, a list of [take-off, somersaults, twists, position]")
    if not isinstance(dives, list) or not all(isinstance(dive, list) for dive in dives):
        raise ValueError(f"{path} is no list of [take-off, somersaults, twists, position]")
    return [
        ", ".join(spoken_part(need_text(part, f"{path}: dive {i}")) for part in dive)
        for i, dive in enumerate(dives)
    ]


def spoken_part(part: str) -> str:
    """15som -> 1.5 somersaults, 05Twis -> 0.5 twists, NoTwis -> no twist, FREE -> free."""
    found = re.fullmatch(r"(\d)(\d)(som|Twis)\w*", part)
    if found:
        return f"{found[1]}.{found[2]} {'somersaults' if found[3] == 'som' else 'twists'}".replace(".0 ", " ")
    return {"NoTwis": "no twist"}.get(part, part.lower())


def diving48_rows(split: str, path: Path, classes: list[str]) -> Iterator[Row]:
    for where, entry in objects(path, "videos of Diving48", "vid_name", "label"):
        label = entry["label"]
        if not isinstance(label, int) or not 0 <= label < len(classes):
            raise ValueError(f"{where}: the label {label!r} is none of 0 to {len(classes) - 1}")
        yield Row(need_text(entry["vid_name"], f"{where}, vid_name"), classes[label])


KINETICS = """Kinetics-{0} from its csv files

The columns label, youtube_id, time_start, time_end, as https://github.com/cvdfoundation/kinetics-dataset
distributes them; videos are called <youtube_id>_<start>_<end>, seconds in six digits."""

SETS = {
    "msvd": Source(
        """MSVD from its English descriptions and lists of videos

https://www.cs.utexas.edu/~ml/clamp/videoDescription/ distributes AllVideoDescriptions.txt. The lists of the
common split, 1,200, 100 and 670 videos, have an id a line. Each caption is a query.""",
        "caption",
        {"train": "train_list.txt", "val": "val_list.txt", "test": "test_list.txt"},
        msvd_rows,
        ("AllVideoDescriptions.txt", msvd_captions),
    ),
    "activitynet": Source(
        """ActivityNet Captions from its json files, as paragraphs

https://cs.stanford.edu/people/ranjaykrishna/densevid/ distributes train.json and val_1.json, the common
test. A video's sentences, one after another, are one caption.""",
        "caption",
        {"train": "train.json", "test": "val_1.json"},
        activitynet_rows,
        rule="sentences are joined by a space, in the file's order",
    ),
    "vatex": Source(
        """VATEX from its json files, the English captions

https://eric-xw.github.io/vatex-website/download.html distributes them. The common test of retrieval is a list
of 1,500 videos of the validation: --test vatex_validation_v1.0.json --only LIST. Each caption is a query.""",
        "caption",
        {
            "train": "vatex_training_v1.0.json",
            "val": "vatex_validation_v1.0.json",
            "test": "vatex_public_test_english_v1.1.json",
        },
        vatex_rows,
    ),
    "youcook2": Source(
        """YouCook2 from its json file, a caption a piece of a video

http://youcook2.eecs.umich.edu/download distributes youcookii_annotations_trainval.json.""",
        "caption",
        {"train": None, "val": None},
        youcook2_rows,
        ("youcookii_annotations_trainval.json", youcook2_videos),
    ),
    "k600": Source(KINETICS.format(600), "label", {"train": "train.csv", "val": "val.csv"}, kinetics_rows),
    "k700": Source(KINETICS.format(700), "label", {"train": "train.csv", "val": "val.csv"}, kinetics_rows),
    "charades": Source(
        """Charades from its csv files, the classes of a whole video

https://prior.allenai.org/projects/charades distributes Charades_v1_classes.txt, Charades_v1_train.csv and
Charades_v1_test.csv. A video is of every class that is seen anywhere in it.""",
        "label",
        {"train": "Charades_v1_train.csv", "test": "Charades_v1_test.csv"},
        charades_rows,
        ("Charades_v1_classes.txt", charades_classes),
        lambda names: list(names.values()),
    ),
    "moments": Source(
        """Moments in Time from its csv files

http://moments.csail.mit.edu distributes moments_categories.txt, trainingSet.csv and validationSet.csv, and
the folders training/ and validation/.""",
        "label",
        {"train": "trainingSet.csv", "val": "validationSet.csv"},
        moments_rows,
        ("moments_categories.txt", moments_classes),
        lambda classes: [plus_as_space(name) for name in classes],
        by_name=False,
        rule="class names are the folders' with spaces for '+'",
    ),
    "diving48": Source(
        """Diving48 from its json files

http://www.svcl.ucsd.edu/projects/resound/dataset.html distributes Diving48_vocab.json,
Diving48_V2_train.json and Diving48_V2_test.json.""",
        "label",
        {"train": "Diving48_V2_train.json", "test": "Diving48_V2_test.json"},
        diving48_rows,
        ("Diving48_vocab.json", diving48_classes),
        lambda classes: classes,
        rule="class texts: [Back, 15som, 05Twis, FREE] is 'back, 1.5 somersaults, 0.5 twists, free'",
    ),
}
