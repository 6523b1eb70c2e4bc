"""Reading pickles without running anything that they name.

A pickle is a small program: it names classes and functions and says what to call them with. Here it is read
as data. Whatever it names becomes an inert record of the name and the arguments: nothing is imported, nothing
looked up, nothing called. An unpickler can call nothing but what `find_class` gave it, and methods of what
that made; ours gives fresh subclasses of `Record` and nothing else, and their methods store or do nothing.

Before that, `check_pickle` goes through the program without running it. Python's unpickler takes memory for
lengths that a file merely claims, and the hash of a tuple recurses without end: a few bytes could take all
memory, hang, or crash the process.
"""

import io
import pickle
import pickletools
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO

MAX_BYTES = 64 * 2**20  # of one pickle; the largest checkpoint's is a few MB, its tensors lie outside of it
MAX_OPERATIONS = 5_000_000  # of one pickle
MAX_VALUES = 10_000_000  # in one value, counting what is shared each time
MAX_DEPTH = 100

# What unpickling, and making sense of the result, may raise on a file that is damaged or of another kind.
DAMAGED = (
    *(pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError, AttributeError, OverflowError),
    *(RuntimeError, struct.error),
)

_MARK = object()
_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}


class Record:
    """Stands in for an object that a pickle describes: keeps the arguments, items and state it is given."""

    named = ""  # module.name in the pickle, set on each subclass

    def __new__(cls, *args: Any, **kwargs: Any) -> "Record":
        self = super().__new__(cls)
        self.args, self.items, self.state = args, {}, None
        return self

    def __init__(self, *args: Any, **kwargs: Any):
        self.args: tuple[Any, ...]
        self.items: dict[Any, Any]
        self.state: Any

    def __call__(self, *args: Any, **kwargs: Any) -> "Record":
        return self

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items[key] = value

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle that `check_pickle` has let pass into plain values and `Record`s."""

    def __init__(self, file: BinaryIO, encoding: str):
        super().__init__(file, encoding=encoding)
        self.persistent: list[Any] = []  # what the pickle refers to outside of itself

    def find_class(self, module: str, name: str) -> type[Record]:
        return type("Record", (Record,), {"named": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Record:
        """torch refers to a storage by ("storage", its type, its name, device, elements)."""
        self.persistent.append(pid)
        return Record("storage", pid)


def check_file(path: str | Path) -> Path:
    """`path`, if it is a regular file: a pipe or a device could hang whoever reads it.

    Raises:
        FileNotFoundError: there is nothing of that name, or a link that leads nowhere.
        ValueError: it is something else than a file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise FileNotFoundError(f"no file {path} ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise ValueError(f"{path} is no file, but a {kind}")
    return path


def load_plain(file: BinaryIO, encoding: str = "ASCII") -> Any:
    """The value of the pickle at the place where an open file stands, read as data; `file` stands behind it.

    encoding: of the strings that Python 2 wrote.

    Raises:
        one of DAMAGED: it is no whole pickle, or one larger than any that makes sense.
    """
    return inert_unpickler(file, encoding).load()


def inert_unpickler(file: BinaryIO, encoding: str = "ASCII") -> InertUnpickler:
    """What `load_plain` reads with."""
    start = file.tell()
    check_pickle(file)
    end = file.tell()
    file.seek(start)
    return InertUnpickler(io.BytesIO(file.read(end - start)), encoding=encoding)


def check_pickle(file: BinaryIO) -> None:
    """Go through a pickle's operations without carrying them out; `file` then stands behind it.

    Raises:
        ValueError, IndexError or KeyError: it is no whole pickle; a length that it claims is not there; or
            what it builds is larger or deeper than anything that makes sense.
    """
    stack: list[Any] = []  # of each value its (depth, number of values)
    memo: dict[Any, Any] = {}
    bounded: Any = _Bounded(file)  # has all of a file that genops needs
    for count, (operation, argument, _) in enumerate(pickletools.genops(bounded)):
        name = operation.name
        if count > MAX_OPERATIONS:
            raise ValueError(f"a pickle of more than {MAX_OPERATIONS} operations")
        if name.startswith("EXT") or name.endswith("BUFFER"):
            raise ValueError(f"a pickle with the operation {name}")
        if name == "MARK":
            stack.append(_MARK)
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name.endswith("PUT"):
            if not (isinstance(argument, int) and 0 <= argument <= MAX_OPERATIONS):
                raise ValueError(f"a pickle that numbers a value {argument}")
            memo[argument] = stack[-1]
        elif name.endswith("GET"):
            stack.append(memo[argument])
        else:
            made = _combine(name, _take(operation, stack))
            stack += [made] * len(operation.stack_after)


class _Bounded:
    """A file of which a pickle may read MAX_BYTES, and no more at once than the file still holds."""

    def __init__(self, file: BinaryIO):
        self.file = file
        here = file.tell()
        self.left = min(MAX_BYTES, file.seek(0, io.SEEK_END) - here)
        file.seek(here)

    def read(self, size: int) -> bytes:
        self._spend(size)
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left + 1)
        self._spend(len(line))
        return line

    def _spend(self, size: int) -> None:
        if size > self.left:
            raise ValueError(
                f"a pickle that claims {size} bytes where {self.left} are left of the file, or of "
                f"{MAX_BYTES // 2**20} MB"
            )
        self.left -= size


def _take(operation: pickletools.OpcodeInfo, stack: list[Any]) -> list[Any]:
    """What an operation takes off the stack, the topmost first."""
    before = operation.stack_before
    if pickletools.markobject not in before:
        return [stack.pop() for _ in before]
    taken = []
    while (top := stack.pop()) is not _MARK:
        taken.append(top)
    return taken + [stack.pop() for _ in range(before.index(pickletools.markobject))]


def _combine(name: str, taken: list[Any]) -> tuple[int, int]:
    """(depth, number of values) of what is made of values, or of the container that takes others in."""
    values = [value for value in taken if value is not _MARK]
    size = 1 + sum(size for _, size in values)
    if name in _IN_PLACE and values:
        *items, container = values
        depth = max([container[0], *(1 + depth for depth, _ in items)])
    else:
        depth = 1 + max((depth for depth, _ in values), default=0)
    if depth > MAX_DEPTH:
        raise ValueError(f"a pickle of values nested more than {MAX_DEPTH} deep")
    if size > MAX_VALUES:
        raise ValueError(f"a pickle of more than {MAX_VALUES} values in one")
    return depth, size
