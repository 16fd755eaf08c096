"""The box diagrams of docs/format.md and of docstrings, held against the code that reads and writes those bytes.

A row of a box is `| offset | name | size |`; a size that is not a number, or none, stands for bytes whose number
varies; an empty offset goes on with the row above. A box that is not in DIAGRAMS fails, and so does one that is gone.
"""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from struct import Struct, calcsize

import pytest
from msgspec import Struct as Record
from pybroker.protocol import batch
from pybroker.protocol.classic import convert
from pybroker.storage import cipher, seal
from pybroker.storage.local import bounds, checkpoint, index, journal, table

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("protocol", "storage")

# What the code says of a layout: structs one after the other, and bytes that no struct names.
Layout = tuple[Struct | bytes, ...]

RECORD: Layout = (batch._HEADER, batch._ZEROS)
FRAME: Layout = (batch._FRAME,)
CLASSIC_MESSAGE: Layout = (convert._U64, convert.MESSAGE)
SEALED: Layout = (bytes(seal.SEAL_POSITION), seal.SEAL, cipher._ZEROS)
ENTRY: Layout = (Struct(f"<{index._ENTRY_SIZE // index.Index().offsets.itemsize}Q"),)
TRAILER: Layout = (index._TRAILER,)
CHECKPOINT: Layout = (checkpoint._POINT, checkpoint._CHECKSUM)
EVENT: Layout = (journal._HEADER,)
CHANGE: Layout = (table._CHANGE,)
BOUND: Layout = (bounds._U64,)
GAP: Layout = (bounds._GAP,)

# The boxes of each file, by the name in their first row.
DIAGRAMS: dict[str, dict[str, Layout]] = {
    "docs/format.md": {
        "partition id": RECORD,
        "message checksum": FRAME,
        "the plain record's header up to the zeros": SEALED,
        "base offset": ENTRY,
        "bytes of the log it covers": TRAILER,
        "base offset of the segment": CHECKPOINT,
        "first offset that is kept": BOUND,
        "next offset before the skip": GAP,
        "checksum of all before it": BOUND,
        "payload size": EVENT,
        "1: put, 0: delete": CHANGE,
    },
    "protocol/batch.py": {"partition id": RECORD, "checksum": FRAME},
    "protocol/classic/convert.py": {"checksum": CLASSIC_MESSAGE},
    "storage/seal.py": {"the plain record's header": SEALED},
    "storage/local/bounds.py": {
        "first offset that is kept": BOUND,
        "next offset before the skip": GAP,
        "XXH3-64 of all before it": BOUND,
    },
    "storage/local/checkpoint.py": {"base offset of the segment": CHECKPOINT},
    "storage/local/index.py": {"base offset": ENTRY, "bytes of the log it covers": TRAILER},
    "storage/local/journal.py": {"payload size": EVENT, "state size": EVENT},
    "storage/local/table.py": {"1: put, 0: delete": CHANGE},
}

_BORDER = re.compile(r"\+-+\+-+\+-+\+")
# Of `entry, 24, ascending` and of `Checkpoint, 40 bytes`.
_CAPTION_SIZE = re.compile(r"\w, (\d+)\b")
_FIELD = re.compile(r"(\d*)([a-zA-Z?])")


class Row(Record, frozen=True):
    """offset, size: None where they vary."""

    offset: int | None
    name: str
    size: int | None


class Box(Record, frozen=True):
    """caption: the line over the box, as far as it stands over it."""

    caption: str
    rows: list[Row]

    @property
    def fixed(self) -> list[Row]:
        """Return the rows before the first one whose size varies."""
        count = next((number for number, row in enumerate(self.rows) if row.size is None), len(self.rows))
        return self.rows[:count]

    @property
    def size(self) -> int:
        return sum(row.size or 0 for row in self.fixed)


def boxes_of(text: str) -> list[Box]:
    """Return the boxes in a text. Raises AssertionError where one is not drawn as it should be."""
    lines = text.splitlines()
    found: list[Box] = []
    ends: dict[tuple[int, int], int] = {}  # of the boxes so far, by columns: the line of the bottom
    for number, line in enumerate(lines):
        for border in _BORDER.finditer(line):
            if number <= ends.get(border.span(), -1):
                continue
            drawn = list(_drawn_rows(lines, number + 1, border))
            ends[border.span()] = number + 1 + len(drawn)
            found.append(Box(_caption(lines, number, border), _joined(drawn)))
    return found


def _drawn_rows(lines: list[str], start: int, border: re.Match[str]) -> Iterator[list[str]]:
    """Yield the cells of the lines from `start` on to the border that ends the box."""
    left, right = border.span()
    walls = [at for at in range(left, right) if border.string[at] == "+"]
    for number in range(start, len(lines)):
        line = lines[number]
        if line[left:right] == border[0]:
            return
        assert len(line) >= right and all(line[at] == "|" for at in walls), f"not a row of the box: {line}"
        yield [line[begin + 1 : end].strip() for begin, end in pairwise(walls)]
    raise AssertionError(f"no lower border: {lines[start - 1]}")


def _joined(drawn: list[list[str]]) -> list[Row]:
    """Make rows of cells; a line without an offset and a size goes on with the name above."""
    rows: list[Row] = []
    for offset, name, size in drawn:
        if not offset and not size:
            rows[-1] = Row(rows[-1].offset, f"{rows[-1].name} {name}", rows[-1].size)
        else:
            rows.append(Row(int(offset) if offset else None, name, int(size) if size.isdecimal() else None))
    return rows


def _caption(lines: list[str], number: int, border: re.Match[str]) -> str:
    """Return the text over a box: what of the line above stands over it, or all of the last line with words in it."""
    over = lines[number - 1][border.start() : border.end()].strip() if number else ""
    if re.search(r"\w", over):
        return over
    return next((line for line in reversed(lines[:number]) if re.search(r"\w", line)), "")


def fields_of(layout: Layout) -> tuple[set[tuple[int, int]], int]:
    """Return offset and size of each field that the code reads by itself, and the size of it all."""
    fields: set[tuple[int, int]] = set()
    position = 0
    for part in layout:
        if isinstance(part, bytes):
            position += len(part)
            continue
        assert part.format[0] == "<", "sizes are the same everywhere"
        for count, kind in _FIELD.findall(part.format):
            times, size = (1, int(count or 1)) if kind in "sx" else (int(count or 1), calcsize(f"<{kind}"))
            fields |= {(position + size * each, size) for each in range(times) if kind != "x"}
            position += size * times
    return fields, position


def check(box: Box, layout: Layout) -> None:
    """Assert that a box's offsets add up, and that it has the code's fields and size."""
    fields, size = fields_of(layout)
    expected = 0
    for row in box.rows[: len(box.fixed) + 1]:
        assert row.offset == expected, f"{box.caption}: {row.name}"
        expected += row.size or 0
    assert box.size == size, box.caption
    assert fields <= {(row.offset, row.size) for row in box.fixed}, box.caption
    stated = _CAPTION_SIZE.search(box.caption)
    assert stated is None or int(stated[1]) == size, box.caption


def texts() -> dict[str, str]:
    """Return the texts that draw boxes, by the file's name."""
    modules = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    documented = {path: ast.get_docstring(ast.parse(path.read_text())) or "" for path in modules}
    documented[ROOT / "docs" / "format.md"] = (ROOT / "docs" / "format.md").read_text()
    return {str(path.relative_to(ROOT)): text for path, text in documented.items() if _BORDER.search(text)}


def test_every_box_is_held_against_the_code() -> None:
    drawn = {name: sorted(box.rows[0].name for box in boxes_of(text)) for name, text in texts().items()}
    assert drawn == {name: sorted(known) for name, known in DIAGRAMS.items()}


@pytest.mark.parametrize(("name", "title"), [(name, title) for name, known in DIAGRAMS.items() for title in known])
def test_a_box_says_what_the_code_does(name: str, title: str) -> None:
    box = next(box for box in boxes_of(texts()[name]) if box.rows[0].name == title)
    check(box, DIAGRAMS[name][title])


PAIR = "pair, 16\n+---+---+---+\n| 0 | a | 8 |\n| 8 | b | 8 |\n+---+---+---+\n"
WRONG = {
    "a gap between rows": ("| 8 | b | 8 |", "| 9 | b | 8 |"),
    "a size that is not the code's": ("| 8 | b | 8 |", "| 8 | b | 4 |"),
    "fields that the code has otherwise": ("| 8 | b | 8 |", "| 8 | b | 4 |\n| 12| c | 4 |"),
    "a wall out of line": ("| 8 | b | 8 |", "| 8  | b | 8|"),
    "no lower border": ("| 8 | b | 8 |\n+---+---+---+", "| 8 | b | 8 |"),
    "a caption that says another size": ("pair, 16", "pair, 17"),
}


def test_a_right_box_passes() -> None:
    check(boxes_of(PAIR)[0], (Struct("<QQ"),))


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_box_fails(case: str) -> None:
    before, after = WRONG[case]
    assert before in PAIR
    with pytest.raises(AssertionError):
        check(boxes_of(PAIR.replace(before, after))[0], (Struct("<QQ"),))
