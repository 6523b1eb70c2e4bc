"""How the commands' --help reads: prose, options in groups with their defaults, examples that run."""

import argparse
import re
import textwrap
from typing import Any

EXAMPLE = re.compile(r"\s*(python|bash|torchrun|tvtsv2) ")


class CommandParser(argparse.ArgumentParser):
    """The options of a command.

    Args:
        prog: what to type, from the repository's folder.
        text: what stands around the options, most often the docstring of the command's module: paragraphs of
            prose; one of examples, lines for a shell; and what else is to be said.
        options: others of argparse.

    Attributes:
        examples: the lines for a shell, continued ones joined.
    """

    def __init__(self, prog: str, text: str | None = None, **options: Any):
        paragraphs = (text or "").rstrip().split("\n\n")
        first = next((i for i, each in enumerate(paragraphs) if EXAMPLE.match(each)), len(paragraphs))
        about, behind = paragraphs[:first], paragraphs[first:]
        self.examples: list[str] = []
        if behind:
            lines = textwrap.dedent(behind[0])
            self.examples = re.sub(r"\\\n\s*", "", lines).splitlines()
            behind[0] = f"examples:\n{textwrap.indent(lines, '  ')}"
        super().__init__(
            prog=prog,
            description="\n\n".join(about),
            epilog="\n\n".join(behind) or None,
            formatter_class=HelpFormatter,
            **options,
        )


def add_overrides(options: argparse._ActionsContainer, help: str) -> None:
    """`--set KEY=VALUE`, as often as one likes, of a parser or of a group of its options."""
    options.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=help
    )


class HelpFormatter(argparse.HelpFormatter):
    """Wraps prose to the terminal, leaves paragraphs with indented lines alone, and names all defaults."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part if "\n " in part else textwrap.fill(" ".join(part.split()), width)
            for part in text.split("\n\n")
        )

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        unsaid = default is None or isinstance(default, bool) or default in ([], argparse.SUPPRESS)
        if unsaid or "default" in text or not action.option_strings:
            return text
        if isinstance(default, float):
            default = f"{default:g}"
        if isinstance(default, (list, tuple)):
            default = " ".join(map(str, default))
        return f"{text} (default: {str(default).replace('%', '%%')})"
