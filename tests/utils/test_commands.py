"""Every command's --help: one style, and examples that the command itself understands."""

import importlib
import os
import re
import shlex
import subprocess
import sys

import pytest

from downstream.__main__ import COMMANDS
from utils.commands import CommandParser
from utils.config import REPOSITORY

BENCHMARKS = [
    f"benchmarks.{path.stem}"
    for path in sorted((REPOSITORY / "benchmarks").glob("*.py"))
    if "CommandParser(" in path.read_text()
]
MODULES = sorted({module for module, _ in COMMANDS.values()} | set(BENCHMARKS))


class Parsed(Exception):
    """What a command would go on with."""


@pytest.fixture
def commands(monkeypatch):
    """Commands end once they have understood their arguments; gives the parsers that showed their help."""
    shown: list[CommandParser] = []
    understand, explain = CommandParser.parse_args, CommandParser.print_help

    def parse_args(self, args=None, namespace=None):
        raise Parsed(understand(self, args, namespace))

    def print_help(self, file=None):
        shown.append(self)
        explain(self, file)

    monkeypatch.setattr(CommandParser, "parse_args", parse_args)
    monkeypatch.setattr(CommandParser, "print_help", print_help)
    return shown


def parsers_of(module: str, shown: list[CommandParser], capsys) -> list[CommandParser]:
    """A command's parser, and those of its subcommands."""
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).main(["--help"])
    assert end.value.code == 0
    capsys.readouterr()
    parsers, waiting = [], [shown[-1]]
    while waiting:
        parsers.append(waiting.pop())
        for action in parsers[-1]._actions:
            if isinstance(action.choices, dict):
                waiting += [each for each in action.choices.values() if isinstance(each, CommandParser)]
    return parsers


@pytest.mark.parametrize("module", MODULES)
def test_help_and_its_examples(module, commands, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for parser in parsers_of(module, commands, capsys):
        text = parser.format_help()
        about, examples = parser.description, parser.examples
        assert about and text.startswith(f"usage: {parser.prog} ") and "\nexamples:\n" in text
        for action in parser._actions:
            assert action.help, f"{parser.prog}: nothing is said of {action.dest}"
        assert len(parser._action_groups[1]._group_actions) <= 9, "put them into groups"
        assert examples
        for example in examples:
            arguments = understood(example, parser)
            with pytest.raises(Parsed if "--help" not in arguments else SystemExit):
                importlib.import_module(module).main(arguments)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("data_loader.check", ["configs/demo.json"]),
        ("data_loader.demo", []),
        ("data_loader.prepare.__main__", ["lsmdc", "list.csv"]),
        ("downstream.table", ["results"]),
        ("model.convert", ["in.pth", "out"]),
        ("model.export", ["in.pth", "out.pt2", "--tower", "text", "--format", "torch"]),
        ("model.summary", ["TVTSv2_B_16"]),
        ("train", ["--config", "configs/demo.json"]),
        ("trainer.curves", ["results"]),
    ],
)
def test_ctrl_c_is_one_line(module, arguments, monkeypatch, capsys):
    """Here as soon as the arguments are understood; those that keep what they have done have own tests."""

    def parse_args(self, args=None, namespace=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(CommandParser, "parse_args", parse_args)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module(module).main(arguments)
    assert stop.value.code == 130
    assert re.fullmatch(r"\ninterrupted: .*\n", capsys.readouterr().err)


def understood(example: str, parser: CommandParser) -> list[str]:
    """The arguments of an example, which has to be a call of this command, subcommands among them."""
    words, program = shlex.split(example, comments=True), parser.prog.split()
    if words[0] == "torchrun":
        words, program = words[words.index(program[1]) :], program[1:]
    assert words[: len(program)] == program, f"{example!r} calls something else"
    return program[3:] + words[len(program) :]


@pytest.mark.heavy
@pytest.mark.parametrize("module", BENCHMARKS)
def test_a_benchmark_runs_as_its_help_says(module, commands, capsys, tmp_path):
    """From any folder, if it is a file, and without a path in the environment."""
    prog = parsers_of(module, commands, capsys)[0].prog
    first, *rest = prog.split()[1:]
    of_file = first != "-m"
    done = subprocess.run(
        [sys.executable, REPOSITORY / first if of_file else first, *rest, "--help"],
        cwd=tmp_path if of_file else REPOSITORY,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"usage: {prog} " in done.stdout


def test_every_command_is_listed():
    """And has no parser of another kind."""
    made = set()
    for folder in ("model", "data_loader", "trainer", "downstream", "benchmarks", "."):
        for path in (REPOSITORY / folder).glob("**/*.py" if folder != "." else "*.py"):
            text = path.read_text()
            if re.search(r"^    (return )?parser = \S*(CommandP|evaluation_p|ArgumentP)arser\(", text, re.M):
                made.add(".".join(path.relative_to(REPOSITORY).with_suffix("").parts))
    assert made - {"downstream.options", "downstream.__main__"} == set(MODULES)
