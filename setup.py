"""Builds the package `tvtsv2` of the folders of this repository; what else it takes stands in pyproject.toml.

In a clone the folders are packages of their own, `model`, `utils` and so on: names too common for an
environment that is shared with others. So the build puts them into one package, and rewrites what they
import from each other, `from utils.files import …`, to `from tvtsv2.utils.files import …`. Imports that are
relative throughout would need no rewriting, but a package around the folders in the clone as well, where
`python train.py` and the files of downstream/ run by themselves and have none.
"""

import ast
import re
import shutil
from itertools import accumulate
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel
from setuptools.errors import SetupError

NAME = "tvtsv2"
ABOUT = (
    '"""TVTSv2: features of videos and texts that work out of the box, zero-shot tests, pre-training."""\n'
)
FOLDERS = ("CLIP", "OpenCLIP", "data_loader", "downstream", "model", "trainer", "utils")
ENTRIES = ("test", "train")  # files beside them
DATA = (".css", ".html", ".js", ".json", ".md")

OWN = "|".join((*FOLDERS, *ENTRIES))
IMPORT = [(rf"^from ({OWN})\b", rf"from {NAME}.\1")]
SAID = [  # in strings: objects that are found by name, and what people are told to type
    (rf"(?<=[\"'])({OWN})((?:\.\w+)+:\w+)(?=[\"'])", rf"{NAME}.\1\2"),
    (r"python downstream/feature_extraction\.py", f"{NAME} features"),
    (r"python downstream/mteb_tasks\.py", f"{NAME} mteb"),
    (r"bash scripts/prepare_videos\.sh", f"{NAME} reencode"),
    (r"bash scripts/demo\.sh", f"{NAME} demo"),
    (r"python -m data_loader\.demo\b", f"{NAME} demo_data"),
    (r"python -m (?:data_loader|downstream|model|trainer)\.(\w+)\b(?!\.)", rf"{NAME} \1"),
    (r"python (?:downstream/)?(\w+)\.py", rf"{NAME} \1"),
    (r"(torchrun [-\w ]*)\b(test|train)\.py", rf"\1-m {NAME}.\2"),
    (rf"python -m ({OWN})\b", rf"python -m {NAME}.\1"),
    (rf"\bfrom ({OWN})\b([.\w]*) import\b", rf"from {NAME}.\1\2 import"),
]


def rewritten(source: str, path: str) -> str:
    """The text of a module as the package has it.

    Raises:
        SetupError: `import folder` and `import folder.module`, which bind a name that the package lacks.
    """
    content = source.encode()  # in whose bytes ast counts columns
    lines = [0, *accumulate(map(len, content.splitlines(keepends=True)))]
    spans = []
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import) and any(re.match(rf"({OWN})\b", name.name) for name in node.names):
            raise SetupError(f"{path}, line {node.lineno}: write it as `from … import …`")
        if isinstance(node, ast.ImportFrom):
            patterns = [] if node.level else IMPORT
        elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and type(node.value) is str):
            patterns = SAID
        else:
            continue
        begin, end = (
            lines[node.lineno - 1] + node.col_offset,
            lines[node.end_lineno - 1] + node.end_col_offset,
        )
        spans.append((begin, -end, patterns))
    pieces, done = [], 0
    for begin, end, patterns in sorted(spans, key=lambda span: span[:2]):
        if begin < done:
            continue  # a part of an f-string, whose text is rewritten as a whole
        text = content[begin:-end].decode()
        for pattern, replacement in patterns:
            text = re.sub(pattern, replacement, text)
        pieces += [content[done:begin].decode(), text]
        done = -end
    return "".join([*pieces, content[done:].decode()])


class BuildPackage(build_py):
    def run(self) -> None:
        package = Path(self.build_lib) / NAME
        shutil.rmtree(package, ignore_errors=True)  # of a build before, with files that are gone by now
        super().run()
        (package / "__init__.py").write_text(ABOUT)

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        if package == NAME:  # whose folder is the whole clone
            return [(NAME, entry, f"{entry}.py") for entry in ENTRIES]
        return super().find_package_modules(package, package_dir)

    def build_module(self, module: str, module_file: str, package: str) -> tuple[str, bool]:
        target, copied = super().build_module(module, module_file, package)
        source = Path(module_file).read_text(encoding="utf-8")
        Path(target).write_text(rewritten(source, module_file), encoding="utf-8")
        return target, copied


class RefuseEditable(editable_wheel):
    def run(self) -> None:
        raise SetupError(
            "the package is not what the clone holds: leave out -e, or put the clone in PYTHONPATH"
        )


def packages() -> list[str]:
    found = (init.parent for folder in FOLDERS for init in Path(folder).rglob("__init__.py"))
    return [NAME, *sorted(".".join((NAME, *folder.parts)) for folder in found)]


def package_data() -> dict[str, list[str]]:
    """Configs, templates and the like; not what a user has put into the folders for weights."""
    found = {
        f"{NAME}.{folder}": [
            str(path.relative_to(folder))
            for path in Path(folder).rglob("*")
            if path.suffix in DATA and "models" not in path.parts
        ]
        for folder in FOLDERS
    }
    return {NAME: ["configs/*.json", "License.txt"], **found}


setup(
    packages=packages(),
    package_dir={NAME: ".", **{f"{NAME}.{folder}": folder for folder in FOLDERS}},
    package_data=package_data(),
    cmdclass={"build_py": BuildPackage, "editable_wheel": RefuseEditable},
)
