"""The benchmark of searching, in small."""

import json

import pytest

from benchmarks import search


@pytest.mark.heavy
def test_it_measures_and_prints(tmp_path, capsys):
    given = ["--vectors", "1000", "2000", "--arch", "TVTSv2_Demo", "--threads", "1", "--queries", "5"]
    assert search.main([*given, "--json", str(tmp_path / "figures.json")]) == 0
    assert "search, 1 threads: " in capsys.readouterr().out
    tables = json.loads((tmp_path / "figures.json").read_text())["tables"]
    assert [row["name"] for row in tables["searching"]] == ["1,000 vectors", "2,000 vectors"]
    for row in tables["searching"]:
        assert row["recall_texts"] >= 0.98 and row["recall_videos"] >= 0.98  # exact, but for half precision
        assert all(value >= -0.1 for name, value in row.items() if name != "name")


def test_its_vectors_resemble_embeddings():
    world = search.World(5000, 512)
    features = search.unit(world.table("TVTSv2_B_32").features).numpy()
    queries = world.queries(features, 50)
    assert (features[:1000] @ features[-1000:].T).mean() == pytest.approx(0.56, abs=0.06)
    assert (features[:-1] * features[1:]).sum(1).mean() == pytest.approx(0.94, abs=0.03)
    assert abs((queries["texts"] @ features.T).mean()) < 0.15
