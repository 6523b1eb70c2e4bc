"""Prompt sets and names of classes, by name and from files, against plain versions."""

import re
from itertools import product

import numpy as np
import pytest

import test as test_entry
from downstream import recognition
from downstream.prompts import class_names, prompt_templates
from utils.config import ConfigError, load_config
from utils.schema import EvaluationConfig

from . import layouts
from .test_commands import arguments, failing
from .test_protocols import cosine, embed_text, embed_video, place, run


def check_recognition(results: dict, model, folder, prompts: list[str], names: list[str]) -> None:
    """Each video and each text alone; a class is the mean of its prompts' normalised embeddings."""
    classes = []
    for name in names:
        embeds = [embed_text(model, prompt.replace("{}", name)) for prompt in prompts]
        classes.append(np.mean([embed / np.linalg.norm(embed) for embed in embeds], axis=0))
    for i, query in enumerate(results["queries"]):
        video = embed_video(model, next(folder.rglob(f"clip{i}.avi")))
        scores = [cosine(video, text) for text in classes]
        assert query["rank"] == place(scores, names.index(query["class"]))
        assert query["predicted"] == names[int(np.argmax(scores))]
    assert results["details"]["prompts"] == prompts


def test_the_sets_are_those_that_were_published():
    nouns = ("a photo", "a video", "a example", "a demonstration")
    verbs = ("", " using", " doing", " during", " performing", " practicing")
    of_kinetics = [f"{noun} of a person{verb} {{}}." for noun, verb in product(nouns, verbs)]
    of_kinetics += [f"{noun} of {{}}." for noun in nouns]
    assert sorted(prompt_templates("clip-kinetics")) == sorted(of_kinetics) and len(of_kinetics) == 28
    of_ucf101 = [f"{noun} of {a} person{verb} {{}}." for noun, a, verb in product(nouns, ("a", "the"), verbs)]
    assert sorted(prompt_templates("clip-ucf101")) == sorted(of_ucf101) and len(of_ucf101) == 48
    assert len(prompt_templates("internvideo")) == 16
    for name in ("clip-kinetics", "clip-ucf101", "internvideo"):
        assert all(text.count("{}") == 1 for text in prompt_templates(name))


def test_a_set_by_name(model, checkpoint, tmp_path):
    layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    results = run(
        recognition.main, "hmdb51", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out",
        "--set", "prompts=internvideo",
    )  # fmt: skip
    check_recognition(results, model, tmp_path, prompt_templates("internvideo"), layouts.CLASSES)
    assert results["config"]["prompts"] == "internvideo"


def test_prompts_and_classes_from_files(model, checkpoint, tmp_path):
    layouts.recognition("ucf101", tmp_path / "data", tmp_path / "meta")
    (tmp_path / "prompts.txt").write_bytes(b"\xef\xbb\xbf{} in a film\r\n\r\n  a person {}\r\n")
    (tmp_path / "names.txt").write_text("a leap\nsomeone in water\na board game\n")
    results = run(
        test_entry.main, "ucf101", tmp_path / "data", tmp_path / "meta", checkpoint, tmp_path / "out",
        "--set", f"prompts={tmp_path / 'prompts.txt'}", "--set", f"class_names={tmp_path / 'names.txt'}",
    )  # fmt: skip
    names = ["a leap", "someone in water", "a board game"]
    check_recognition(results, model, tmp_path, ["{} in a film", "a person {}"], names)
    labels = [query["class"] for query in results["queries"]]
    assert labels == [names[i] for i in (0, 1, 2, 2, 1, 0)]


def test_one_prompt_of_a_list_can_be_set():
    config = load_config(
        EvaluationConfig, "downstream/configs/k400.json", ['prompts=["{}", "a {}"]', "prompts.1=the {}"]
    )
    assert config.prompts == ["{}", "the {}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a person {}\na person\n", "prompts.txt, line 2: 'a person' has no {}"),
        (b"\n \n", "prompts.txt is empty"),
        (b"a {}\n{}\na {}\n", "'a {}' is given twice as a prompt; it would count double"),
        (b"a {}\n\xff {}\n", "prompts.txt, line 2: byte 0xff is not UTF-8"),
    ],
)
def test_a_file_of_prompts_with_a_mistake(content, message, tmp_path):
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        prompt_templates(str(tmp_path / "prompts.txt"))


def test_neither_a_set_nor_a_file():
    with pytest.raises(
        ConfigError, match=r"did you mean 'clip-kinetics'\? the sets: clip-kinetics, clip-ucf"
    ):
        prompt_templates("clip-kinetic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", "names.txt names 2 classes, the data set has 3; write one name a line"),
        ("a\nb\nc\nd\n", "names.txt names 4 classes, the data set has 3"),
        ("a\nb\na\n", "'a' is given twice as a class; nothing would tell them apart"),
        ("Run\nfly\nto_sit\n", "class 1 is 'to sit' in the data set, where 'fly' is class 2;"),
    ],
)
def test_names_of_classes_with_a_mistake(text, message, tmp_path):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        class_names(str(tmp_path / "names.txt"), ["run", "to sit", "fly"])


def test_mistakes_are_found_before_the_work(checkpoint, tmp_path, capsys):
    layouts.recognition("hmdb51", tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, dataset="hmdb51")
    assert "neither a file nor a set" in failing(recognition.main, [*given, "--set", "prompts=x.txt"], capsys)
    (tmp_path / "names.txt").write_text("one\n")
    of_names = ["--set", f"class_names={tmp_path / 'names.txt'}"]
    assert "names 1 classes, the data set has 3" in failing(recognition.main, [*given, *of_names], capsys)
    assert "nowhere.txt is missing" in failing(
        recognition.main, [*given, "--set", "class_names=nowhere.txt"], capsys
    )
    assert not (tmp_path / "out").exists()
    layouts.msrvtt(tmp_path / "data", tmp_path / "meta")
    given = arguments(tmp_path, checkpoint, *of_names)
    assert "ClassRecords are needed" in failing(test_entry.main, given, capsys)
