"""Typed configs: a dataclass says the keys, a JSON file and `--set key=value` fill them.

The dataclasses are in utils/schema.py. What does not fit them is a ConfigError that names the key.
"""

import contextlib
import difflib
import json
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

REPOSITORY = Path(__file__).resolve().parent.parent  # or the package that pip has installed
INSTALLED = __name__.startswith("tvtsv2.")
# Below it lie weights and lists that are fetched; nothing of the user's belongs into a package.
USER_ROOT = Path() if INSTALLED else REPOSITORY
PYTHON_WORDS = {"None": None, "True": True, "False": False}  # as people write them on the command line
TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    types.NoneType: "null",
    dict: "an object of keys and values",
}

UNFIT = object()  # no value at all

T = TypeVar("T")


class ConfigError(ValueError):
    """A config file or an override that cannot be used; the message names the key and what to do."""


@dataclass(frozen=True)
class Limit:
    """Narrows a type: Annotated[int, Limit("a whole number from 1 on", lambda n: n >= 1)]."""

    words: str
    holds: Callable[[Any], bool]


def key(default: Any, meaning: str) -> Any:
    """A key of a config's dataclass; MISSING as the default makes it one that a config must give."""
    about = {"meaning": meaning}
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=about)
    return field(default=default, metadata=about)


def load_config(kind: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read a config: the defaults of `kind`, with the values of a file put over them, then each override.

    Args:
        kind: a dataclass of utils/schema.py.
        path: a JSON file. Objects merge key by key with the defaults; lists and plain values replace theirs.
        overrides: "trainer.epochs=3", "data.train.0.root=/disk/yt". The value is JSON; Python's None, True,
            False and .5 are understood, too, and texts need no quotes.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not valid JSON, an unknown key (the nearest known one is named), a missing one, or a
            value of another type than the key's.
    """
    try:
        config: Any = convert(read_json(resolve_path(path)), kind, "")
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    config = overridden(config, overrides)
    check = getattr(config, "check", None)
    if check is not None:
        check()
    return config


def overridden(config: T, overrides: Iterable[str]) -> T:
    """A config, or a part of one, with `overrides` as in `load_config`. Raises ConfigError."""
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override!r} has no '='; write --set key.path=value")
        try:
            config = _set(config, type(config), name.split("."), text, "")
        except ConfigError as error:
            raise ConfigError(f"--set {override}: {error}") from error
    return config


def as_dict(node: Any) -> Any:
    """A config as plain containers, as JSON has them; null options of data sets are left out."""
    if is_dataclass(node):
        sparse = getattr(node, "sparse", False)
        values = {each.name: as_dict(getattr(node, each.name)) for each in fields(node)}
        return {name: value for name, value in values.items() if not (sparse and value is None)}
    if isinstance(node, Mapping):
        return {name: as_dict(value) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [as_dict(value) for value in node]
    return node


def resolve_path(path: str | Path) -> Path:
    """Where to read: a path as given if it exists from the current directory, else from the repository.

    So every command works from any directory, with the same config. A package has no files but its configs.
    """
    path = Path(path).expanduser()
    ours = REPOSITORY / path
    if path.is_absolute() or path.exists() or (INSTALLED and not ours.exists()):
        return path
    return ours


def output_path(path: str | Path) -> Path:
    """Where to write: a relative path is one from the current directory, whatever exists elsewhere."""
    return Path(path).expanduser().absolute()


def read_json(path: str | Path) -> Any:
    """Read a JSON file, with errors that name it and the line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"no config file {path}; those of the repository are in {REPOSITORY / 'configs'}"
        )
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_repetitions)
    except json.JSONDecodeError as error:
        raise ConfigError(f"not valid JSON: line {error.lineno}: {error.msg}") from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}") from error


def nearest_key(name: str, known: Iterable[str]) -> str:
    """Words for an error message: the known key most like `name`, or all of them when none is alike."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"


def annotations(kind: type) -> dict[str, Any]:
    """The keys of a config's dataclass and their types."""
    hints = get_type_hints(kind, include_extras=True)
    return {each.name: hints[each.name] for each in fields(kind)}


def type_words(kind: Any) -> str:
    """A type for people: "a whole number from 1 on or null"."""
    origin, members = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return members[1].words
    if origin in (Union, types.UnionType):
        return ", or ".join(map(type_words, members))
    if origin is Literal:
        return f"one of {', '.join(members)}" if len(members) > 1 else members[0]
    if origin is list:
        return f"a list, each item {type_words(members[0])}"
    if origin is tuple:
        return f"a list of {len(members)}, each {type_words(members[0])}"
    return TYPE_NAMES[dict if is_dataclass(kind) else origin or kind]


def convert(value: Any, kind: Any, name: str, base: Any = None) -> Any:
    """`value`, as JSON has it, as an instance of the type `kind`; `name` is the key's, for errors.

    base: where `kind` is a dataclass, an instance whose values stand for the keys that are not given.

    Raises ConfigError: it is of another type.
    """
    plain, limit = get_args(kind) if get_origin(kind) is Annotated else (kind, None)
    converted = _fit(value, plain, name, base)
    if converted is UNFIT or (limit is not None and not limit.holds(converted)):
        raise ConfigError(f"{name} is {_shown(value)}; it must be {type_words(kind)}")
    return converted


def _fit(value: Any, kind: Any, name: str, base: Any) -> Any:
    """As `convert`, without a limit; UNFIT where the value as a whole is of another type."""
    origin, members = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _fill(value, kind, name, base)
    if origin in (Union, types.UnionType):
        errors = []
        for member in members:
            try:
                return convert(value, member, name)
            except ConfigError as error:
                errors.append(error)
        inner = [error for error in errors if str(error).startswith(f"{name}.")]
        if inner:  # of the right kind, but for a part of it: that says more than all the types do
            raise inner[0]
        return UNFIT
    if origin is Literal:
        return value if isinstance(value, str) and value in members else UNFIT
    if origin is list and isinstance(value, list):
        return [convert(item, members[0], f"{name}.{i}") for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, list) and len(value) == len(members):
        return tuple(convert(item, members[i], f"{name}.{i}") for i, item in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {k: convert(item, members[1], f"{name}.{k}") for k, item in value.items()}
    if kind is Any:
        return value
    if isinstance(value, bool):  # which Python counts among the numbers
        return value if kind is bool else UNFIT
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind is float and isinstance(value, int | float):
        return float(value) if abs(value) <= sys.float_info.max else UNFIT  # also refuses NaN
    return value if origin is None and isinstance(value, kind) else UNFIT


def _fill(values: Any, kind: Any, name: str, base: Any) -> Any:
    """An instance of a dataclass from the keys given, and for the others the values of `base` or defaults."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name or 'the whole file'} must be an object of keys and values")
    known, prefix = annotations(kind), f"{name}." if name else ""
    given = {}
    for each, value in values.items():
        if each not in known:
            raise ConfigError(_unknown(kind, each, prefix))
        before = _default(kind, each) if base is None else getattr(base, each)
        given[each] = convert(value, known[each], prefix + each, None if before is MISSING else before)
    if base is not None:
        return replace(base, **given)
    for each in known:
        if each not in given and _default(kind, each) is MISSING:
            raise ConfigError(f"{prefix + each!r} is missing: {_meaning(kind, each)}")
    return kind(**given)


def _set(node: Any, kind: Any, path: list[str], text: str, name: str) -> Any:
    """`node`, of the type `kind`, with what `path` leads to in it replaced by the text of a command line."""
    if not path:
        return _from_text(text, kind, name, node)
    if get_origin(kind) in (Union, types.UnionType):
        kind = next((member for member in get_args(kind) if _takes(member, node)), kind)
    if get_origin(kind) is Annotated:
        kind, limit = get_args(kind)
        changed = _set(node, kind, path, text, name)
        if not limit.holds(changed):
            raise ConfigError(f"{name} is {_shown(as_dict(changed))}; it must be {limit.words}")
        return changed
    first, *rest = path
    inner = f"{name}.{first}" if name else first
    if is_dataclass(kind):
        known = annotations(kind)  # type: ignore[arg-type]
        if first not in known:
            raise ConfigError(_unknown(kind, first, f"{name}." if name else ""))
        return replace(node, **{first: _set(getattr(node, first), known[first], rest, text, inner)})
    if isinstance(node, list):
        if not first.isdecimal() or int(first) >= len(node):
            raise ConfigError(f"{name} is a list of {len(node)}; write a number below that, not {first!r}")
        items, place = list(node), int(first)
        items[place] = _set(items[place], get_args(kind)[0], rest, text, inner)
        return items
    if isinstance(node, Mapping):
        item_kind = get_args(kind)[1] if get_origin(kind) is dict else Any
        return {**node, first: _set(node.get(first, {}), item_kind, rest, text, inner)}
    raise ConfigError(f"{name} is a plain value and has no key {first!r}")


def _takes(kind: Any, node: Any) -> bool:
    try:
        convert(as_dict(node), kind, "")
    except ConfigError:
        return False
    return True


def _from_text(text: str, kind: Any, name: str, before: Any) -> Any:
    """The value of an override; a number stands for the text that it is where a text is wanted."""
    try:
        value: Any = json.loads(text, object_pairs_hook=_without_repetitions)
    except (json.JSONDecodeError, RecursionError):
        value = PYTHON_WORDS.get(text, text)
        with contextlib.suppress(ValueError):
            value = float(text)  # such as .0001, which is no JSON
    try:
        return convert(value, kind, name, before)
    except ConfigError:
        if isinstance(value, int | float) and not isinstance(value, bool):
            with contextlib.suppress(ConfigError):
                return convert(text, kind, name)
        raise


def _default(kind: Any, name: str) -> Any:
    """The default of a key; MISSING where there is none."""
    found = next(each for each in fields(kind) if each.name == name)
    return found.default_factory() if found.default_factory is not MISSING else found.default


def _meaning(kind: Any, name: str) -> str:
    return next(each.metadata.get("meaning", "") for each in fields(kind) if each.name == name)


def _unknown(kind: Any, name: str, prefix: str) -> str:
    hint = getattr(kind, "elsewhere", {}).get(name) or nearest_key(name, annotations(kind))
    return f"unknown key {prefix + name!r}; {hint}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _without_repetitions(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ConfigError(f"the key {name!r} is given twice")
        found[name] = value
    return found
