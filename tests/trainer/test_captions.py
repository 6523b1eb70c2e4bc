"""The example config for one's own captions: as it stands, with nothing set but the model and the folder."""

import json

import train
from data_loader import check
from model import create_model
from tests.data_loader import video_files as files
from trainer.checkpoint import save_atomically

CONFIG = "configs/captions.json"


def test_it_trains_on_a_list_of_ones_own(tmp_path, monkeypatch, capsys):
    data = tmp_path / "data" / "captions"
    (data / "videos").mkdir(parents=True)
    for split, count in (("train", 4), ("val", 2)):
        rows = [f'{split}{i}.mp4,"a red car, number {i}"' for i in range(count)]
        (data / f"{split}.csv").write_text("\n".join(["path,caption", *rows]) + "\n")
        for i in range(count):
            files.write_video(data / "videos" / f"{split}{i}.mp4", 12 + i, size=(76, 76))
    model = create_model("TVTSv2_Demo")
    save_atomically({"state_dict": model.state_dict()}, tmp_path / "start.pth")
    monkeypatch.chdir(tmp_path)  # its paths are below the current folder

    settings = {"arch.type": "TVTSv2_Demo", "arch.start_from": "start.pth", "arch.compile": "false"}
    settings |= {"trainer.save_dir": str(tmp_path / "runs"), "trainer.device": "cpu", "trainer.threads": "1"}
    settings |= {"data.batch_size": "2", "data.num_workers": "0", "trainer.epochs": "1"}
    settings |= {"data.read_timeout": "null", "trainer.tensorboard": "false"}
    overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert check.main([CONFIG, "--workers", "1"]) == 0
    assert train.main(["--config", CONFIG, *overrides]) == 0
    run = tmp_path / "runs" / "captions"
    assert (run / "model_best.pth").exists()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    [step, *_] = [row for row in rows if "loss" in row and row.get("set") == "csv"]
    assert step["loss"] > 0
    assert any("csv_t2v_R1" in row for row in rows)
