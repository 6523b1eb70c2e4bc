"""The benchmark of searching, in small."""

from benchmarks import search


def test_it_measures_and_prints(capsys):
    assert search.main(["--vectors", "1000", "--arch", "TVTSv2_Demo", "--threads", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "1000 vectors, TVTSv2_Demo, 1 threads"
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "embedding the query",
        "searching, top 10",
        "searching, one per video",
    ]
    assert all("median" in line and "max" in line for line in lines[1:])
