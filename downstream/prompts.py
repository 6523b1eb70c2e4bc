"""The texts that stand for a class in zero-shot recognition: prompt sets, and names of classes from a file.

prompts.json holds the sets that others average over, each with its source.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path

from data_loader.labels import plain_name
from data_loader.lists import need_file, read_json, read_text
from utils.config import ConfigError, resolve_path

SETS = Path(__file__).parent / "prompts.json"


def prompt_templates(prompts: list[str] | str) -> list[str]:
    """The texts with {} for the class that a config's `prompts` mean: a list, the name of a set, or a file.

    Raises:
        ConfigError: neither a set nor a file; a line without {}; a text given twice.
    """
    if isinstance(prompts, list):
        texts, where = prompts, "prompts"
    elif prompts in (sets := read_json(SETS, "the prompt sets")):
        texts, where = sets[prompts]["templates"], prompts
    else:
        path = resolve_path(prompts)
        if not path.is_file():
            close = difflib.get_close_matches(prompts, sets, n=1)
            meant = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"prompts is {prompts!r}, neither a file nor a set of prompts; {meant}the sets: "
                f"{', '.join(sets)}"
            )
        lines = read_lines(path)
        for number, text in lines:
            if "{}" not in text:
                raise ConfigError(f"{path}, line {number}: {text!r} has no {{}}, where the class goes")
        texts, where = [text for _, text in lines], str(path)
    _refuse_repeated(texts, where, "a prompt", "it would count double")
    return texts


def class_names(file: str, before: Sequence[str]) -> list[str]:
    """Other names of the classes than those `before`, from a file with one a line, in the order of their
    numbers.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: another number of names than classes, the same for two, or one that is another's now.
    """
    path = need_file(resolve_path(file), "the names of the classes, one a line (class_names)")
    names = [name for _, name in read_lines(path)]
    if len(names) != len(before):
        raise ConfigError(
            f"{path} names {len(names)} classes, the data set has {len(before)}; write one name a line, "
            "for each class, in the order of their numbers"
        )
    _refuse_repeated(names, str(path), "a class", "nothing would tell them apart")
    places = {plain_name(name): number for number, name in enumerate(before)}
    for number, name in enumerate(names):
        if (place := places.get(plain_name(name), number)) != number:
            raise ConfigError(
                f"{path}: class {number} is {before[number]!r} in the data set, where {name!r} is class "
                f"{place}; write the names in the order of the classes' numbers"
            )
    return names


def read_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, with their numbers, without spaces around them.

    Raises ConfigError: there is none.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise ConfigError(f"{path} is empty; write one text a line")
    return lines


def _refuse_repeated(texts: list[str], where: str, what: str, why: str) -> None:
    repeated = next((text for i, text in enumerate(texts) if text in texts[:i]), None)
    if repeated is not None:
        raise ConfigError(f"{where}: {repeated!r} is given twice as {what}; {why}")
