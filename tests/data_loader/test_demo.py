"""The demo's world: what is never seen in training, what the questions ask for, and the files."""

import json
from collections import Counter

import numpy as np
import pytest

import CLIP
from data_loader import build_dataset
from data_loader.demo import ORDERS, SIZES, generate, lay_out
from data_loader.demo_narration import FORMS
from data_loader.demo_world import (
    COLOURS,
    FAMILIAR,
    HELD_OUT,
    MOTIONS,
    NUM_FRAMES,
    PALETTES,
    SHAPES,
    Event,
    draw_frames,
)
from data_loader.lists import read_table
from data_loader.msrvtt import msrvtt
from tests.extras import extra


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    """Lists and captions at their full size, and the videos they need, none of them drawn."""
    root = tmp_path_factory.mktemp("lists")
    return root, lay_out(root, seed=0, scale=1.0)


def is_training(root, video) -> bool:
    name = video.path.relative_to(root)
    return name.parts[0] != "msrvtt" and "train" in str(name)


def looks(video) -> set:
    return {(event.colour, event.shape) for event in video.events}


def test_sizes(lists):
    _, videos = lists
    assert len(videos) == sum(SIZES.values()) <= 2400
    assert len({video.path for video in videos}) == len(videos)
    assert len({video.seed for video in videos}) == len(videos)


def test_test_side_shows_what_training_never_does(lists):
    root, videos = lists
    training = [video for video in videos if is_training(root, video)]
    assert len(training) == sum(size for name, size in SIZES.items() if name.endswith("_train"))
    assert set().union(*map(looks, training)) == set(FAMILIAR)
    for video in videos:
        if not is_training(root, video):
            assert looks(video) & set(HELD_OUT)
    for part, names in ((0, COLOURS), (1, SHAPES)):  # the parts of what is new are not
        assert {look[part] for look in FAMILIAR} == set(names)


def test_training_shows_the_same_events_in_other_orders(lists):
    _, videos = lists
    assert len({frozenset(palette) for palette in PALETTES}) == 16
    assert set(Counter(colour for palette in PALETTES for colour in palette).values()) == {6}
    stories = [v.events for v in videos if "WebVid/train" in str(v.path) and len(v.events) == 3]
    assert 0.6 * SIZES["webvid_train"] < len(stories) < 0.75 * SIZES["webvid_train"]
    colours = [tuple(event.colour for event in story) for story in stories]
    assert set(map(frozenset, colours)) == set(map(frozenset, PALETTES))
    assert len(set(colours)) == 16 * 6
    for i in range(0, len(stories) - ORDERS, ORDERS):
        orders = stories[i : i + ORDERS]
        assert len(set(orders)) == ORDERS and len(set(map(frozenset, orders))) == 1


def test_options_differ_in_the_order_of_events_alone(lists):
    root, videos = lists
    shown = {video.path.name: video.events for video in videos if "SSV2" in str(video.path)}
    rows = [json.loads(line) for line in (root / "meta_data/ssv2/mc/val.jsonl").read_text().splitlines()]
    assert len(rows) == SIZES["ssv2"]
    for row in rows:
        options = [tuple(option.split(" then ")) for option in row["options"]]
        assert len(set(options)) == 6
        assert len({tuple(sorted(option)) for option in options}) == 1
        assert options[row["answer"]] == tuple(event.text for event in shown[row["clip_name"]])
    assert len({row["answer"] for row in rows}) == 6  # not always in the same place


def test_queries_and_classes(lists):
    root, videos = lists
    meta = root / "meta_data"
    (root / "msrvtt/videos/all").mkdir(parents=True)
    queries = msrvtt("test", root / "msrvtt", meta).captions
    assert len(set(queries)) == len(queries) == SIZES["msrvtt"] == 100
    for split in ("clip", "train"):
        seen = {}
        for video in videos:
            if "hmdb51" in str(video.path) and video.path.name.startswith(split):
                (event,) = video.events
                seen.setdefault(event.motion, Counter())[event.colour, event.shape] += 1
        assert list(seen) == list(MOTIONS)
        assert len({tuple(sorted(counts.items())) for counts in seen.values()}) == 1  # the same looks in each


def test_every_word_of_a_caption_is_one_token(lists):
    root, _ = lists
    captions = read_table(root / "meta_data/webvid_train.tsv", "captions").column("caption")
    words = sorted({word for caption in captions for word in caption.split()})
    assert {*COLOURS, *SHAPES, *MOTIONS, "then", "something"} < set(words)
    assert (CLIP.tokenize(words).argmax(dim=1) == 2).all()  # start, the word, end


@pytest.mark.parametrize("motion", MOTIONS)
def test_motions(motion):
    frames = draw_frames(np.random.default_rng(0), [Event("white", "square", motion)])
    shown = (frames > 200).all(axis=3)
    rows, columns = ({tuple(np.flatnonzero(frame.any(axis))) for frame in shown} for axis in (1, 0))
    expected = {
        "stays": (1, 1),
        "flashes": (2, 2),  # here or nowhere
        "slides": (1, 10),
        "grows": (9, 9),
    }[motion]
    assert len(frames) == NUM_FRAMES
    assert (len(rows), len(columns)) == expected
    assert (() in rows) == (motion == "flashes")


def test_files_are_read_by_the_data_sets_and_made_once(tmp_path):
    root = tmp_path / "demo"
    assert generate(root, seed=1, scale=0.01, workers=1)
    meta = root / "meta_data"
    for kind, folder, split in (
        ("yttemporal", "YTTemporal", "train"),
        ("yttemporal", "YTTemporal", "val"),
        ("webvid", "WebVid", "train"),
        ("webvid", "WebVid", "val"),
        ("msrvtt", "msrvtt", "test"),
        ("msrvtt", "msrvtt", "train"),
        ("hmdb51", "hmdb51", "test"),
        ("hmdb51", "hmdb51", "train"),
        ("ssv2", "SSV2", "test"),
    ):
        dataset = build_dataset(kind, split, root=root / folder, meta=meta, image_size=64)
        item = dataset[0]
        assert item["video"].shape == (12, 3, 64, 64) and item["valid_frames"] == 12
        assert all(item["text"]) and len(item["text"]) == (4 if kind == "yttemporal" else 1)
    assert not generate(root, seed=1, scale=0.01, workers=1)  # the same again: kept
    assert generate(root, seed=2, scale=0.01, workers=1)  # other videos: made anew
    extra("webvtt")
    same_events_in_the_new_forms(root, meta)


def same_events_in_the_new_forms(root, meta):
    """The videos of YT-Temporal with other transcripts, and as captioned spans."""
    common = {"meta": meta, "image_size": 64}
    plain = build_dataset("yttemporal", "train", root=root / "YTTemporal", **common)
    videos = root / "YTTemporal/videos"
    narrated = build_dataset("narrated", "train", root=videos, files="narrated_train.tsv", **common)
    spans = {"root": videos, "files": {"train": "spans_train.tsv", "val": "spans_val.tsv"}, **common}
    sequences = build_dataset("csv", "train", num_clips=4, **spans)
    assert len(plain) == len(narrated) == len(sequences) == 5
    assert {narrated.records.transcript_path(i).suffix for i in range(5)} == set(FORMS)
    for i in range(len(plain)):
        raw = json.loads(plain.records.transcript_path(i).read_text())["subtitles"]
        heard = [(word["word"], word["time"]) for word in raw if word["word"] != "&gt;&gt;"]
        transcript = narrated.records[i].transcript
        assert transcript.words == [word for word, _ in heard]
        late = 1.2 if narrated.records.transcript_path(i).suffix == ".srt" else 1e-3  # spread over its line
        assert np.allclose(transcript.times, [time for _, time in heard], atol=late)
        assert plain.records.path(i) == narrated.records.path(i) == sequences.records.path(i)
        item = sequences[i]
        assert len(item["text"]) == 4 and item["valid_frames"] == 12
        said = [
            denoised["cleanasr"].lower().rstrip(".")
            for denoised in json.loads(plain.records.transcript_path(i).read_text())["denoised"]
        ]
        assert item["text"] == said
        assert len(narrated[i]["text"]) == 4 and not narrated[i]["failures"]
    assert len(build_dataset("csv", "val", **spans)) == 16  # each span a record


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds something other than demo data"):
        generate(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "dear"
