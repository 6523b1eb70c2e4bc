"""Tasks of the real mteb: its own mocks, and tasks of our files whose numbers are those of our protocols."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from downstream import mteb_tasks, recognition, retrieval
from downstream.embedding.embedder import Embedder
from downstream.embedding.encoder import load_encoder
from downstream.feature_files import load_features
from tests.extras import extra
from utils.processes import setup

from . import layouts
from .test_commands import failing
from .test_protocols import embed_video, run

datasets = extra("datasets")
extra("mteb")
abstasks = extra("mteb.abstasks")
bootstrapped = extra("mteb.abstasks.clustering")._evaluate_clustering_bootstrapped
RetrievalSplitData = extra("mteb.abstasks.retrieval_dataset_loaders").RetrievalSplitData
TaskMetadata = extra("mteb.abstasks.task_metadata").TaskMetadata
mock_clustering = extra("mteb.mocks.mock_tasks.clustering")
mock_retrieval = extra("mteb.mocks.mock_tasks.retrieval")
mock_zeroshot = extra("mteb.mocks.mock_tasks.zeroshot_classification")
MtebEncoder = extra("downstream.mteb_encoder").MtebEncoder
Dataset = datasets.Dataset

ABOUT = {
    "description": "Tiny videos.",
    "reference": None,
    "dataset": {"path": "none", "revision": "1"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "date": None,
    "domains": [],
    "task_subtypes": [],
    "license": None,
    "annotations_creators": None,
    "dialect": [],
    "sample_creation": None,
    "bibtex_citation": "",
    "modalities": ["video", "text"],
}


def videos(paths: list[Path], as_bytes: bool = False, **columns: list) -> Dataset:
    """Rows of videos as the hub has them: files, or their bytes in the table."""
    values = [path.read_bytes() if as_bytes else str(path) for path in paths]
    return Dataset.from_dict({"video": values, **columns}).cast_column("video", datasets.Video())


@pytest.fixture
def offer(monkeypatch):
    """Let mteb know a task of ours by its name."""

    def known(task: type) -> str:
        monkeypatch.setitem(sys.modules["mteb.get_tasks"]._TASKS_REGISTRY, task.metadata.name, task)
        return task.metadata.name

    return known


def retrieval_task(name: str, category: str, queries: Dataset, corpus: Dataset, pairs: list) -> type:
    """A task of (query, document) pairs."""

    class Task(abstasks.AbsTaskRetrieval):
        metadata = TaskMetadata(
            name=name, type="Any2AnyRetrieval", category=category, main_score="ndcg_at_10", **ABOUT
        )

        def load_data(self, **options):
            relevant: dict = {}
            for query, document in pairs:
                relevant.setdefault(query, {})[document] = 1
            data = RetrievalSplitData(queries=queries, corpus=corpus, relevant_docs=relevant, top_ranked=None)
            self.dataset = {"default": {"test": data}}
            self.data_loaded = True

    return Task


def command(checkpoint: Path, output: Path, *tasks: str) -> list[str]:
    given = ["--arch", "TVTSv2_Demo", "--checkpoint", str(checkpoint), "--output", str(output)]
    return [*given, "-d", "cpu", "--num-workers", "0", "--batch-size", "2", "--tasks", *tasks]


def printed(capsys) -> dict[str, float]:
    """What the table says of each task."""
    lines = [line.rsplit("  ", 1) for line in capsys.readouterr().out.splitlines()[1:] if "  " in line]
    return {name.strip(): float(value) for name, value in lines}


@pytest.mark.heavy
def test_retrieval_both_ways(checkpoint, offer, tmp_path, capsys):
    """One of the four videos has two captions."""
    layouts.didemo(tmp_path / "data", tmp_path / "meta")
    ours = run(retrieval.main, "didemo", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out")[
        "metrics"
    ]
    paths = [tmp_path / f"data/clips/v{i}.mp4" for i in range(4)]
    names = [path.stem for path in paths]
    captions = Dataset.from_dict({"id": list("abcde"), "text": layouts.QUERIES[:5]})
    pairs = list(zip("abcde", ["v0", "v1", "v2", "v3", "v1"], strict=True))
    to_video = offer(retrieval_task("OurT2V", "t2v", captions, videos(paths, id=names), pairs))
    to_text = retrieval_task(
        "OurV2T", "v2t", videos(paths, as_bytes=True, id=names), captions, [pair[::-1] for pair in pairs]
    )
    capsys.readouterr()
    assert mteb_tasks.main(command(checkpoint, tmp_path / "mteb", to_video, offer(to_text))) == 0
    found = printed(capsys)
    for name, direction in (("OurT2V", "text to video"), ("OurV2T", "video to text")):
        for k in (1, 5, 10):
            assert found[f"{name} R@{k}"] == pytest.approx(ours[direction]["plain"][f"R{k}"], abs=0.06)
        assert f"{name} ndcg_at_10" in found
    assert len({round(value) for value in found.values()}) > 2  # not all 0 or 100


@pytest.fixture
def actions(checkpoint, tmp_path):
    """Six videos of three classes, and what our protocol found."""
    labels = layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    options = ["--set", 'prompts=["a video of {}"]']
    where = tmp_path / "data", tmp_path / "meta"
    found = run(recognition.main, "hmdb51", *where, checkpoint, tmp_path / "out", *options)
    paths = [tmp_path / "data" / layouts.CLASSES[label] / f"clip{i}.avi" for i, label in enumerate(labels)]
    return paths, labels, found


def zero_shot_task(paths: list[Path], labels: list[int], as_bytes: bool = False) -> type:
    class Task(abstasks.AbsTaskZeroShotClassification):
        input_column_name = "video"
        metadata = TaskMetadata(
            name="OurZeroShot",
            type="VideoZeroshotClassification",
            category="v2t",
            main_score="accuracy",
            **ABOUT,
        )

        def load_data(self, **options):
            self.dataset = datasets.DatasetDict(test=videos(paths, as_bytes, label=labels))
            self.data_loaded = True

        def get_candidate_labels(self):
            return [f"a video of {name}" for name in layouts.CLASSES]

    return Task


def test_zero_shot_classification(actions, checkpoint, offer, tmp_path, capsys):
    paths, labels, ours = actions
    capsys.readouterr()
    task = offer(zero_shot_task(paths, labels, as_bytes=True))
    assert mteb_tasks.main(command(checkpoint, tmp_path / "mteb", task)) == 0
    top1 = ours["metrics"]["accuracy"]["plain"]["top1"]
    assert printed(capsys) == {"OurZeroShot accuracy": pytest.approx(top1, abs=0.06)}

    (kept,) = (tmp_path / "mteb").rglob("OurZeroShot.json")
    assert ours["checkpoint"]["sha256"] in str(kept)
    assert json.loads(kept.read_text())["scores"]["test"][0]["accuracy"] == pytest.approx(top1 / 100)
    before = kept.read_bytes()
    for path in paths:
        path.unlink()
    assert mteb_tasks.main(command(checkpoint, tmp_path / "mteb", task)) == 0  # is not measured again
    assert kept.read_bytes() == before


def test_clustering(actions, checkpoint, offer, tmp_path, capsys):
    """k-means on the vectors that our protocol has kept gives the same."""
    paths, labels, _ = actions

    class Task(abstasks.AbsTaskClustering):
        max_fraction_of_documents_to_embed = None
        max_documents_per_cluster = 30
        input_column_name, label_column_name = "video", "label"
        metadata = TaskMetadata(
            name="OurClustering", type="VideoClustering", category="v2c", main_score="v_measure", **ABOUT
        )

        def load_data(self, **options):
            self.dataset = datasets.DatasetDict(test=videos(paths, label=labels))
            self.data_loaded = True

    capsys.readouterr()
    assert mteb_tasks.main(command(checkpoint, tmp_path / "mteb", offer(Task))) == 0
    table = load_features(tmp_path / "out/video_embeddings.safetensors")
    assert table.columns["path"] == [str(path) for path in paths]
    scores, _ = bootstrapped(
        table.features,
        [[label] for label in labels],
        n_clusters=Task.n_clusters,
        cluster_size=30,
        kmean_batch_size=Task.k_mean_batch_size,
        max_depth=None,
        rng_state=random.Random(42),
        seed=42,
    )
    expected = 100 * np.mean(scores["v_measure"]["Level 0"])
    assert printed(capsys) == {"OurClustering v_measure": pytest.approx(expected, abs=0.06)}


@pytest.fixture
def encoder(checkpoint):
    loaded = load_encoder("TVTSv2_Demo", str(checkpoint), setup("cpu"))
    return MtebEncoder(loaded, Embedder(loaded.model, loaded.tokenize, setup("cpu"), batch_size=2))


@pytest.mark.parametrize(
    ("task", "main_score"),
    [
        (mock_retrieval.MockVideoRetrievalT2V, "ndcg_at_10"),
        (mock_retrieval.MockVideoRetrievalV2T, "ndcg_at_10"),
        (mock_zeroshot.MockVideoZeroshotClassificationTask, "accuracy"),
        (mock_clustering.MockVideoClusteringTask, "v_measure"),
    ],
)
def test_the_packages_own_mock_tasks(task, main_score, encoder, tmp_path):
    rows = mteb_tasks.measure(encoder, [task()], tmp_path)
    assert rows[0][0] == f"{task.metadata.name} {main_score}" and 0 <= rows[0][1] <= 100


def test_rows_are_embedded_in_their_order(encoder, model, tmp_path):
    paths = [layouts.write_video(tmp_path / f"{i}.mp4", seed=i, frames=5 + 4 * i) for i in range(5)]
    inputs = DataLoader(videos(paths))
    found = encoder.encode(inputs, task_metadata=mock_retrieval.MockVideoRetrievalT2V.metadata)
    np.testing.assert_allclose(found, [embed_video(model, path) for path in paths], atol=2e-5)


def test_what_changes_results_is_part_of_the_models_name(encoder, checkpoint):
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.revision) == ("tvtsv2/TVTSv2_Demo", encoder.encoder.sha256)
    assert meta.experiment_kwargs is None
    encoder.embedder.precision, encoder.reader = "bf16", "decord"
    assert encoder.mteb_model_meta.experiment_kwargs == {"precision": "bf16", "reader": "decord"}


def test_rows_of_both_or_neither_are_refused(encoder, tmp_path):
    path = layouts.write_video(tmp_path / "a.mp4", seed=1)
    metadata = mock_retrieval.MockVideoRetrievalT2V.metadata
    for rows in (videos([path], text=["a dog"]), Dataset.from_dict({"audio": [1]})):
        with pytest.raises(ValueError, match=r"wants one vector of (text and video|audio)"):
            encoder.encode(DataLoader(rows), task_metadata=metadata)
    with pytest.raises(ValueError, match=r"not datasets\.Video"):
        encoder.encode(DataLoader(Dataset.from_dict({"video": ["a.mp4"]})), task_metadata=metadata)


def test_unreadable_videos_are_named(actions, checkpoint, offer, tmp_path, capsys):
    paths, labels, _ = actions
    paths[2].write_bytes(b"no video")
    paths[4].unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        mteb_tasks.main(command(checkpoint, tmp_path / "mteb", offer(zero_shot_task(paths, labels))))
    said = capsys.readouterr().err
    assert stop.value.code == 1
    assert "2 of 6 videos of OurZeroShot cannot be read" in said
    assert all(f"  {path}: " in said for path in (paths[2], paths[4]))
    assert not list((tmp_path / "mteb").rglob("OurZeroShot.json"))


def test_data_that_cannot_be_had(checkpoint, offer, tmp_path, capsys):
    class Task(zero_shot_task([], [])):
        def load_data(self, **options):
            raise ConnectionError("no network")

    with pytest.raises(SystemExit) as stop:
        mteb_tasks.main(command(checkpoint, tmp_path, offer(Task)))
    assert stop.value.code == 1
    assert "error: the data of OurZeroShot cannot be had: no network" in capsys.readouterr().err


def test_mistakes_are_explained(checkpoint, tmp_path, capsys, monkeypatch):
    said = failing(mteb_tasks.main, command(checkpoint, tmp_path, "HMDB51ZeroShott"), capsys)
    assert "Did you mean: 'HMDB51ZeroShot'?" in said
    said = failing(mteb_tasks.main, command(checkpoint, tmp_path, "MSRVTTVA2T"), capsys)
    assert "MSRVTTVA2T is a task of audio, text and video" in said
    assert "--tasks NAME" in failing(mteb_tasks.main, [], capsys)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in failing(mteb_tasks.main, command(checkpoint, tmp_path, "x"), capsys)
    monkeypatch.setitem(sys.modules, "mteb", None)
    assert "pip install mteb" in failing(mteb_tasks.main, command(checkpoint, tmp_path, "x"), capsys)


def test_tasks_are_listed(capsys):
    assert mteb_tasks.main(["--list"]) == 0
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines()}
    assert {"HMDB51ZeroShot", "Kinetics400ZeroShot", "HMDB51Clustering", "MSRVTTT2V", "MSRVTTV2T"} <= listed
    assert "MSRVTTVA2T" not in listed  # of sound as well
