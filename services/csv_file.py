"""Read a CSV file of any size row by row, and know at each row where in the file it ends; write a safe one.

Python's csv reader takes a file's lines, but does not say how many bytes it has taken. Here the lines
are counted on their way to the reader. So a job can stop after a row and go on there later, and several
jobs can each take a part of the file. A row may span several lines: a quoted field may hold line breaks.
"""

import codecs
import csv
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO

MAX_LINE_BYTES = 1_000_000  # a longer line means that this is not a table, or not one with line breaks

# A spreadsheet runs a cell that begins with one of these, also in a CSV file. The last four are the
# full-width forms from East Asian keyboards.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


@dataclass
class Place:
    """A place between two rows: the number of bytes, and of lines, before it."""

    byte: int
    line: int


@dataclass(frozen=True)
class CsvFile:
    """An open CSV file. `begin` is the place after its header."""

    file: BinaryIO
    name: str
    size: int
    fingerprint: str
    columns: list[str]
    begin: Place

    def rows(self, place: Place, end: int) -> Iterator[tuple[int, list[str]]]:
        """Yield each row from `place` to the byte `end`, with the number of the row's first line.

        `place` moves along: after each row it is the place where the row ends.

        Raises `ValueError` with the line's number if the file is not UTF-8 or not well-formed CSV.
        """
        return _rows(self.file, self.name, place, end)

    def place_of(self, byte: int) -> Place:
        """Return the place at `byte`, which must be the beginning of a line after the header.

        Raises `ValueError` if it is not.
        """
        line = _count_lines(self.file, byte - 1)
        if byte < self.begin.byte or byte > self.size or self.file.read(1) != b"\n":
            raise ValueError(
                f"byte_range begins at {byte}: no row of {self.name} does; take ranges from split_byte_ranges"
            )
        return Place(byte, line + 1)

    def check_unchanged(self) -> None:
        """Raise `ValueError` if somebody has written to the file since it was opened."""
        if _fingerprint(os.fstat(self.file.fileno())) != self.fingerprint:
            raise ValueError(f"{self.name} has changed while it was read; start again when it is complete")


@contextmanager
def open_csv(path: Path, name: str, columns: list[str]) -> Iterator[CsvFile]:
    """Open the CSV file `path`, called `name` in errors, which must have `columns`, in any order.

    Raises `ValueError` if there is no such file, if it is empty, or if the columns are not those.
    """
    if not path.is_file():
        raise ValueError(f"{name}: no such file; give the path of a CSV file in the data folder")
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        # Excel begins a UTF-8 file with a byte-order mark. It is not part of the first column's name.
        has_mark = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        begin = Place(len(codecs.BOM_UTF8) if has_mark else 0, 0)
        expected = f"expected a header line with {','.join(columns)}"
        header = next(_rows(file, name, begin, status.st_size), None)
        if header is None:
            raise ValueError(f"{name} is empty; {expected}")
        found = [column.strip() for column in header[1]]
        if sorted(found) != sorted(columns):
            missing = ", ".join(column for column in columns if column not in found) or "none"
            unknown = ", ".join(column for column in found if column not in columns) or "none"
            raise ValueError(f"{name}: wrong columns (missing: {missing}; unknown: {unknown}); {expected}")
        yield CsvFile(file, name, status.st_size, _fingerprint(status), found, begin)


def _rows(file: BinaryIO, name: str, place: Place, end: int) -> Iterator[tuple[int, list[str]]]:
    file.seek(place.byte)
    # `strict` makes a quote that is not closed an error. Else the reader takes the rest of the file as text.
    reader = csv.reader(_lines(file, name, place, end), strict=True)
    while True:
        line = place.line + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{name}, line {place.line}: {error} (the row begins in line {line}). "
                "Put a field with quotes, commas or line breaks in quotes, and double each quote inside it"
            ) from None
        if row is None:
            return
        if row:  # not an empty line
            yield line, row


def _lines(file: BinaryIO, name: str, place: Place, end: int) -> Iterator[str]:
    while place.byte < end:
        raw = file.readline(MAX_LINE_BYTES)
        if not raw or (len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n")):
            problem = "is longer than 1 MB" if raw else "is missing: the file has become shorter"
            raise ValueError(f"{name}, line {place.line + 1} {problem}; give a table with one row a line")
        place.byte += len(raw)
        place.line += 1
        try:
            yield raw.decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{name}, line {place.line}: byte 0x{raw[error.start]:02x} is not UTF-8; "
                "save the file with the encoding UTF-8"
            ) from None


def _count_lines(file: BinaryIO, end: int) -> int:
    file.seek(0)
    lines = 0
    while end > 0 and (block := file.read(min(end, 1 << 20))):
        lines += block.count(b"\n")
        end -= len(block)
    return lines


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


def harmless(text: str) -> str:
    """Return `text` with an apostrophe before it if a spreadsheet would run it as a formula.

    A customer may be called `=HYPERLINK(...)`. The price: a program that reads the CSV finds the apostrophe.
    """
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


@contextmanager
def as_text(file: BinaryIO) -> Iterator[TextIO]:
    """Write text to the open binary `file` for the time of a block. The file stays open after it."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    yield text
    text.detach()  # writes out the rest, and leaves the file open for who opened it
