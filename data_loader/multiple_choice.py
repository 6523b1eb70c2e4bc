"""Something-Something V2 as multiple choice: each video against its own sentences."""

from pathlib import Path

import numpy as np

from data_loader.lists import need_folder, need_text, numbered_lines, parse_json, prepare_hint
from data_loader.records import Record, Records
from data_loader.strings import Strings


class QuestionRecords(Records):
    """Videos with as many options each, one of which is right.

    sentences: all that are options of a video. answers: int64 [videos], the place of the right option.
    """

    def __init__(self, root: Path, names: list[str], options: list[list[int]], sentences: list[str], answers):
        super().__init__(root, names, "videos/{}".format)
        self.sentences = Strings(sentences)
        self.option_places = np.array(options, dtype=np.int32)  # [videos, options], into the sentences
        self.answers = np.array(answers, dtype=np.int64)

    def options(self, index: int) -> list[str]:
        """The sentences that a video has to choose among."""
        return [self.sentences[place] for place in self.option_places[index]]

    def __getitem__(self, index: int) -> Record:
        answer = int(self.answers[index])
        right = self.sentences[self.option_places[index, answer]]
        return Record(self.id(index), self.path(index), self.span(index), [right], answer=answer)


def ssv2(split: str, root: Path, meta: Path) -> QuestionRecords:
    """`meta`/ssv2/mc/val.jsonl, a line {"clip_name", "options", "answer"} a video; `root`/videos/<clip_name>.

    There is one list for all splits.
    """
    path = meta / "ssv2/mc/val.jsonl"
    need_folder(root / "videos", "the videos of Something-Something V2")
    names, options, answers = [], [], []
    sentences: dict[str, int] = {}
    for number, line in numbered_lines(path, "the questions of SSV2-MC", prepare_hint("ssv2")):
        name, choices, answer = parse_question(line, f"{path}, line {number}")
        names.append(name)
        answers.append(answer)
        options.append([sentences.setdefault(choice, len(sentences)) for choice in choices])
    for sentence in sentences:
        need_text(sentence, f"{path}: an option")
    counts = {len(places) for places in options}
    if len(counts) > 1:
        raise ValueError(f"{path}: the numbers of options differ, {min(counts)} to {max(counts)}")
    return QuestionRecords(root, names, options, list(sentences), answers)


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
    if isinstance(answer, str) and answer.isdecimal():
        answer = int(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        raise ValueError(f"{where}: the answer {answer!r} is none of the {len(options)} options")
    return name, options, answer
