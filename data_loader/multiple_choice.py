"""Something-Something V2 as multiple choice: each video against its own sentences."""

from pathlib import Path

import numpy as np

from data_loader.base import VideoDataset
from data_loader.lists import need_folder, need_text, numbered_lines, parse_json, prepare_hint
from data_loader.strings import Strings


class SSV2MultipleChoice(VideoDataset):
    """`meta`/ssv2/mc/val.jsonl, a line {"clip_name", "options", "answer"} a video; `root`/videos/<clip_name>.

    `options[i]` are the sentences of video i (as many for every video), `answers` int64 [videos] the place
    of the right one. An item carries "answer", and as "text" the right sentence.
    """

    name = "ssv2"

    def __init__(self, split: str = "test", **common):
        super().__init__(split, **common)
        path = self.meta / "ssv2/mc/val.jsonl"
        what = "the questions of SSV2-MC"
        need_folder(self.root / "videos", "the videos of Something-Something V2")
        names, sentences, answers, counts = [], {}, [], []
        places = []
        for number, line in numbered_lines(path, what, prepare_hint(self.name)):
            name, options, answer = parse_question(line, f"{path}, line {number}")
            names.append(name)
            answers.append(answer)
            counts.append(len(options))
            places.append([sentences.setdefault(option, len(sentences)) for option in options])
        for sentence in sentences:
            need_text(sentence, f"{path}: an option")
        if not names:
            raise ValueError(f"{path} is empty: expected {what}")
        if len(set(counts)) > 1:
            raise ValueError(f"{path}: the numbers of options differ, {min(counts)} to {max(counts)}")
        self.names, self.answers = Strings(names), np.array(answers, dtype=np.int64)
        self.sentences = Strings(sentences)
        self.option_places = np.array(
            places, dtype=np.int32
        )  # [videos, options], into the distinct sentences

    def __len__(self) -> int:
        return len(self.names)

    @property
    def options(self) -> list[list[str]]:
        """The sentences of every video, [videos][options]."""
        sentences = list(self.sentences)
        return [[sentences[i] for i in row] for row in self.option_places]

    def video_path(self, index: int) -> Path:
        return self.root / "videos" / self.names[index]

    def video_id(self, index: int) -> str:
        return self.names[index]

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        return [self.sentences[self.option_places[index, self.answers[index]]]]

    def sample(self, index: int, rng: np.random.Generator) -> dict:
        return {**super().sample(index, rng), "answer": int(self.answers[index])}


def parse_question(line: str, where: str) -> tuple[str, list[str], int]:
    """Clip name, options, place of the answer, which may be given as a number from 0 or as the sentence."""
    try:
        question = parse_json(line)
        name, options, answer = question["clip_name"], question["options"], question["answer"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{where} must be {{"clip_name", "options", "answer"}}: {error!r}') from error
    need_text(name, f"{where}: clip_name")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"{where}: the options are {str(options)[:60]}, not a list of sentences")
    if isinstance(answer, str) and answer in options:
        answer = options.index(answer)
    if isinstance(answer, str) and answer.isdigit():
        answer = int(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise ValueError(f"{where}: the answer {answer!r} is none of the {len(options)} options")
    return name, options, answer
