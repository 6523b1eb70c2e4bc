"""Anyone's own videos, zero-shot and probed, from the command line to the figures, against plain versions."""

import json

import numpy as np
import pytest
import torch

import test as test_entry
from data_loader.sampling import sample_frames
from data_loader.transforms import clip_transform, normalize
from data_loader.video import read_frames
from downstream import linear_probe, probe
from model import create_model

from . import layouts
from .test_protocols import check_retrieval, cosine, embed_text, embed_video, place, recall


def run(main, checkpoint, tmp_path, *given: str, status: int = 0) -> dict:
    out = tmp_path / "out"
    common = ["--arch", "TVTSv2_Demo", "-r", str(checkpoint), "--output", str(out), "-d", "cpu"]
    assert main([*given, *common, "--num-workers", "0"]) == status
    return json.loads(next(out.rglob("results.json")).read_text())


def refused(main, checkpoint, tmp_path, capsys, *given: str) -> str:
    with pytest.raises(SystemExit) as stop:
        run(main, checkpoint, tmp_path, *given)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_a_folder_a_class_zero_shot(model, checkpoint, tmp_path, capsys):
    folder = tmp_path / "hmdb51"  # whose published figures are not this folder's
    paths = []
    for i, name in enumerate(["brush_hair", "brush_hair", "TaiChi", "wave"]):
        paths.append(layouts.write_video(folder / name / f"{i}.mp4", seed=i))
    pages = tmp_path / "pages"
    results = run(test_entry.main, checkpoint, tmp_path, "--folder", str(folder), "--report", str(pages))
    names = ["tai chi", "brush hair", "wave"]
    texts = [embed_text(model, f"a video of {name}") for name in names]
    labels, places, guesses = [1, 1, 0, 2], [], []
    for path, label in zip(paths, labels, strict=True):
        scores = [cosine(embed_video(model, path), text) for text in texts]
        places.append(place(scores, label))
        guesses.append(names[int(np.argmax(scores))])
    queries = {query["video"]: query for query in results["queries"]}
    for path, label, rank, guess in zip(paths, labels, places, guesses, strict=True):
        query = queries[str(path.relative_to(folder))]
        assert (query["class"], query["rank"], query["predicted"]) == (names[label], rank, guess)
    assert results["metrics"]["accuracy"]["plain"]["top1"] == pytest.approx(recall(places, 1))
    of_class = {
        name: recall([p for p, k in zip(places, labels, strict=True) if names[k] == name], 1)
        for name in names
    }
    mean = results["metrics"]["mean of classes"]["plain"]["top1"]
    assert mean == pytest.approx(np.mean(list(of_class.values())))
    per_class = {row["name"]: (row["videos"], row["top1"]) for row in results["details"]["per_class"]}
    assert per_class == {name: (labels.count(names.index(name)), top1) for name, top1 in of_class.items()}
    assert results["dataset"] == "hmdb51" and results["published"] == {}
    printed = capsys.readouterr().out
    assert "brush hair" in printed and "mean of classes" in printed
    assert "tai chi" in (pages / "recognition_hmdb51.html").read_text()


def put_lists(tmp_path, rows: list[str], header: str) -> list[str]:
    layouts.write_text(tmp_path / "lists/list.csv", "\n".join([header, *rows]) + "\n")
    where = {"data.root": tmp_path / "videos", "meta": tmp_path / "lists", "data.files": "list.csv"}
    return [word for key, value in where.items() for word in ("--set", f"{key}={value}")]


def average_precision(scores: list[float], wanted: list[bool]) -> float:
    """The mean of the precision at each video that has the class."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits, found = [], 0
    for rank, i in enumerate(order, 1):
        found += wanted[i]
        if wanted[i]:
            hits.append(found / rank)
    return 100 * sum(hits) / len(hits)


def test_several_labels_a_video(model, checkpoint, tmp_path, capsys):
    own = [["sits", "eats"], ["runs"], ["eats"], [], ["sits", "runs", "eats"], ["runs"]]
    paths = [layouts.write_video(tmp_path / f"videos/{i}.mp4", seed=i) for i in range(len(own))]
    rows = [
        f"{path.name},{label}" for path, labels in zip(paths, own, strict=True) for label in labels or [""]
    ]
    layouts.write_text(tmp_path / "lists/classes.txt", "eats\nruns\nsits\nsleeps\n")
    given = put_lists(tmp_path, rows, "path,label")
    given += ["--dataset", "labels", "--set", "data.multi_label=true", "--set", "data.classes=classes.txt"]
    results = run(test_entry.main, checkpoint, tmp_path, *given, "--report", str(tmp_path / "pages"))
    texts = {name: embed_text(model, f"a video of {name}") for name in ("eats", "runs", "sits")}
    embeds = [embed_video(model, path) for path, labels in zip(paths, own, strict=True) if labels]
    expected = {
        name: average_precision(
            [cosine(x, text) for x in embeds], [name in labels for labels in own if labels]
        )
        for name, text in texts.items()
    }
    found = {row["name"]: row["AP"] for row in results["details"]["per_class"]}
    assert found == pytest.approx(expected)
    mean = results["metrics"]["average precision"]["plain"]
    assert mean == {"mAP": pytest.approx(np.mean(list(expected.values())))}
    assert results["counts"] == {"videos": 5, "unlabelled videos": 1, "classes": 3, "empty classes": 1}
    assert "5 videos, 1 unlabelled video, 3 classes, 1 empty class" in capsys.readouterr().out
    assert "Average precision of each class" in (tmp_path / "pages/recognition_labels.html").read_text()


def test_any_list_of_captions_both_ways(model, checkpoint, tmp_path):
    """One video with two captions, one with three, wherever their rows stand."""
    captions = [("a", 0), ("a dog", 1), ("a red car", 2), ("a cat", 1), ("the sea", 0), ("rain", 1)]
    paths = [layouts.write_video(tmp_path / f"videos/{i}.mp4", seed=i) for i in range(3)]
    given = put_lists(tmp_path, [f"{i}.mp4,{text}" for text, i in captions], "path,caption")
    results = run(test_entry.main, checkpoint, tmp_path, "--dataset", "captions", *given)
    texts = [query["caption"] for query in results["queries"]]
    owner = [dict(captions)[text] for text in texts]
    assert sorted(zip(texts, owner, strict=True)) == sorted(captions)
    embeds = [embed_video(model, path) for path in paths]
    check_retrieval(results, embeds, [embed_text(model, text) for text in texts], owner)


def test_captions_of_spans(model, checkpoint, tmp_path):
    path = layouts.write_video(tmp_path / "videos/long.mp4", seed=0, frames=60)  # 10 a second
    layouts.write_video(tmp_path / "videos/other.mp4", seed=1, frames=20)
    rows = ["long.mp4,a dog,0,2", "long.mp4,a car,2,00:00:06", "other.mp4,a cat,,", "long.mp4,the sea,0,2"]
    given = put_lists(tmp_path, rows, "path,caption,start,end")
    given += ["--dataset", "captions", "--report", str(tmp_path / "pages")]
    results = run(test_entry.main, checkpoint, tmp_path, *given)
    embeds = []
    for frames in (range(20), range(20, 60), None):
        video = path if frames else path.with_name("other.mp4")
        chosen = [(frames or range(20))[i] for i in sample_frames(12, len(frames or range(20)))]
        clip, _, _ = read_frames(video, lambda video, chosen=chosen: chosen)
        with torch.no_grad():
            clip = normalize(clip_transform("test", model.image_size)(clip))
            embeds.append(model.encode_video(clip[None])[0][0].numpy())
    names = ["long.mp4#t=0,2", "long.mp4#t=2,6", "other.mp4#t=0,inf"]
    owner = [names.index(query["video"]) for query in results["queries"]]
    assert owner == [0, 0, 1, 2]
    check_retrieval(results, embeds, [embed_text(model, q["caption"]) for q in results["queries"]], owner)
    assert (tmp_path / "pages/retrieval_captions.html").read_text().count("data:image") == 3


def test_spans_of_a_file_may_be_in_training_and_test(checkpoint, tmp_path, capsys):
    layouts.own_folder(tmp_path / "videos", clips=1)
    paths = ["brush_hair/0.mp4", "TaiChi/0.mp4"]
    for name, spans in {"train": ("0,0.5", "0.5,1"), "test": ("1,1.5", "1.4,")}.items():
        rows = [f"{path},{path.split('/')[0]},{span}" for path in paths for span in spans]
        layouts.write_text(tmp_path / f"lists/{name}.csv", "\n".join(["path,label,start,end", *rows]) + "\n")
    given = [
        "--dataset",
        "labels",
        "--set",
        f"data.root={tmp_path / 'videos'}",
        "--set",
        f"meta={tmp_path / 'lists'}",
    ]
    lists = {"train": "train.csv", "test": "test.csv"}
    both = run(
        probe.main, checkpoint, tmp_path, *given, "--set", f"data.files={json.dumps(lists)}", "--probe", "knn"
    )
    assert both["counts"] == {"training videos": 4, "test videos": 4, "classes": 2}
    lists["train"] = "test.csv"
    given += ["--set", f"data.files={json.dumps(lists)}"]
    said = refused(linear_probe.main, checkpoint, tmp_path, capsys, *given)
    assert "4 videos of 4 to test on are among the 4 to train on, e.g. brush_hair/0.mp4#t=1,1.5." in said


def test_folders_of_classes_that_are_numbers_have_no_texts(checkpoint, tmp_path, capsys):
    for name in "01":
        layouts.write_video(tmp_path / f"videos/{name}/a.mp4", seed=0)
    said = refused(test_entry.main, checkpoint, tmp_path, capsys, "--folder", str(tmp_path / "videos"))
    assert "the classes of videos are numbers, 0 to 1" in said and "data.classes=FILE" in said


def test_a_folder_is_probed(checkpoint, tmp_path):
    layouts.own_folder(tmp_path / "mine", clips=3, train=0, test=50)
    results = run(linear_probe.main, checkpoint, tmp_path, "--folder", str(tmp_path / "mine"))
    assert results["counts"] == {"training videos": 6, "test videos": 6, "classes": 2}
    assert results["metrics"]["accuracy"]["plain"]["top1"] == 100.0
    assert {row["name"] for row in results["details"]["per_class"]} == {"brush hair", "tai chi"}


def test_a_probe_tests_on_the_split_that_the_config_names(checkpoint, tmp_path):
    layouts.own_folder(tmp_path / "videos", train=0, val=50, test=100)
    given = ["--probe", "knn", "--folder", str(tmp_path / "videos"), "--set", "data.split=val"]
    results = run(probe.main, checkpoint, tmp_path, *given)
    assert {query["video"].partition("/")[0] for query in results["queries"]} == {"val"}


def test_models_with_and_without_a_classification_head_side_by_side(checkpoint, tmp_path, capsys):
    layouts.own_folder(tmp_path / "videos")
    torch.manual_seed(1)
    tuned = create_model("TVTSv2_Demo", sort_head=False, class_names=["tai chi", "brush hair"])
    torch.save({"state_dict": tuned.state_dict()}, tmp_path / "tuned.pth")
    models = [f"TVTSv2_Demo:{path}" for path in (tmp_path / "tuned.pth", checkpoint)]
    given = ["--folder", str(tmp_path / "videos"), "--model", models[0], "--model", models[1]]
    common = ["--output", str(tmp_path / "out"), "-d", "cpu", "--num-workers", "0"]
    assert test_entry.main([*given, *common]) == 0
    blocks = capsys.readouterr().out.split("videos · recognition · ")
    rows = {
        title: len([line for line in table.splitlines() if line.startswith("TVTSv2_Demo-")])
        for title, _, table in (block.partition("\n") for block in blocks)
    }
    assert rows["accuracy"] == 2 and rows["accuracy, head"] == 1


def test_a_video_trained_on_is_no_test(checkpoint, tmp_path, capsys):
    layouts.own_folder(tmp_path / "mine", train=0, test=50)
    (tmp_path / "mine/test/TaiChi/again.mp4").symlink_to(tmp_path / "mine/train/TaiChi/1.mp4")
    given = ["--folder", str(tmp_path / "mine")]
    said = refused(linear_probe.main, checkpoint, tmp_path, capsys, *given)
    assert "1 video of 5 to test on are among the 4 to train on" in said
    assert "again.mp4, which is" in said and "allow_overlap=true" in said
    results = run(linear_probe.main, checkpoint, tmp_path, *given, "--set", "allow_overlap=true")
    assert results["counts"]["test videos"] == 5
    layouts.own_folder(tmp_path / "flat")
    said = refused(linear_probe.main, checkpoint, tmp_path, capsys, "--folder", str(tmp_path / "flat"))
    assert "4 videos of 4 to test on" in said and "folder needs train/ and test/" in said


def test_captions_have_no_task_of_recognition(checkpoint, tmp_path, capsys):
    layouts.own_folder(tmp_path / "mine")
    given = ["--folder", str(tmp_path / "mine"), "--set", "task=retrieval"]
    said = refused(test_entry.main, checkpoint, tmp_path, capsys, *given)
    assert "CaptionRecords are needed" in said
    assert "one of them" in refused(
        test_entry.main, checkpoint, tmp_path, capsys, "--dataset", "k400", *given
    )


def test_results_of_other_videos_are_not_replaced_without_a_word(checkpoint, tmp_path, capsys):
    for disk in "ab":
        for seed, name in enumerate(("run", "wave")):
            layouts.write_video(tmp_path / disk / "videos" / name / "0.mp4", seed=seed)
        run(test_entry.main, checkpoint, tmp_path, "--folder", str(tmp_path / disk / "videos"))
        said = capsys.readouterr().err
        assert ("replaces the results of" in said) == (disk == "b")
    assert f"on {tmp_path}/a/videos; --output keeps both" in said
    run(test_entry.main, checkpoint, tmp_path, "--folder", str(tmp_path / "b/videos"))
    assert "replaces" not in capsys.readouterr().err
