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
from typing import BinaryIO, NamedTuple, TextIO

# Python's csv reader takes no longer field. A line that is longer is skipped: memory stays small.
MAX_LINE_BYTES = 131_072

# What people save under the name .csv, and how such a file begins.
OTHER_FORMATS = {
    codecs.BOM_UTF16_LE: "a text in UTF-16, which Excel calls Unicode text",
    codecs.BOM_UTF16_BE: "a text in UTF-16, which Excel calls Unicode text",
    b"PK\x03\x04": "a zip archive, as an Excel workbook is",
    b"\x1f\x8b": "a gzip archive",
}
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

# A spreadsheet runs a cell that begins with one of these, also in a CSV file. The last four are the
# full-width forms from East Asian keyboards.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


@dataclass
class Place:
    """A place between two rows: the number of bytes, and of lines, before it."""

    byte: int
    line: int


class Row(NamedTuple):
    """A row, and the number of its first line. With a `problem`, it is a line that cannot be read as one."""

    line: int
    values: list[str]
    problem: str | None = None


@dataclass(frozen=True)
class CsvFile:
    """An open CSV file. `begin` is the place after its header."""

    file: BinaryIO
    name: str
    size: int
    fingerprint: str
    columns: list[str]
    begin: Place

    def rows(self, place: Place, end: int) -> Iterator[Row]:
        """Yield each row from `place` to the byte `end`. An empty line is no row.

        `place` moves along: after each row it is the place where the row ends.

        Raises `ValueError` with the line's number if nobody can say where a row ends, because of its
        quotes; and if the file is not UTF-8.
        """
        return _rows(self.file, self.name, place, end)

    def check_unchanged(self) -> None:
        """Raise `ValueError` if somebody has written to the file since it was opened."""
        if _fingerprint(os.fstat(self.file.fileno())) != self.fingerprint:
            raise ValueError(f"{self.name} has changed while it was read; start again when it is complete")


@contextmanager
def open_csv(path: Path, name: str, columns: list[str]) -> Iterator[CsvFile]:
    """Open the CSV file `path`, called `name` in errors, which must have `columns`, in any order.

    Raises `ValueError` if it is empty or in another format, if its columns are not separated by commas, or
    are not those.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        _check_format(file, name)
        # Excel begins a UTF-8 file with a byte-order mark. It is not part of the first column's name.
        file.seek(0)
        has_mark = file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8
        begin = Place(len(codecs.BOM_UTF8) if has_mark else 0, 0)
        file.seek(begin.byte)
        _check_first_line(file.readline(MAX_LINE_BYTES), name, columns)
        header = next(_rows(file, name, begin, status.st_size), None)
        if header is None:
            raise ValueError(f"{name} is empty; expected a header line with {','.join(columns)}")
        if header.problem:
            raise ValueError(f"{name}, line {header.line}: {header.problem}")
        found = [column.strip() for column in header.values]
        _check_columns(found, name, columns)
        yield CsvFile(file, name, status.st_size, _fingerprint(status), found, begin)


# --- The header, and what is wrong with a file that has none ---------------------------------------------


def _check_format(file: BinaryIO, name: str) -> None:
    start = file.read(4)
    for beginning, form in OTHER_FORMATS.items():
        if start.startswith(beginning):
            raise ValueError(f"{name} is {form}, and not CSV; save it as CSV in the encoding UTF-8")


def _check_first_line(raw: bytes, name: str, columns: list[str]) -> None:
    text = raw.rstrip(b"\r\n").decode(errors="replace")
    if "\0" in text:
        raise ValueError(f"{name}, line 1 has NUL bytes, as UTF-16 has; save it in the encoding UTF-8")
    if "\r" in text:
        raise ValueError(
            f"{name}: its lines end with a carriage return (CR) alone, as very old Mac programs write them; "
            "save it with line ends LF or CRLF"
        )
    if text.lower().startswith("sep="):
        raise ValueError(
            f"{name}, line 1: {_shown(text)} is a note to Excel and no header; remove this line, and "
            "separate the columns with commas"
        )

    def known(separator: str) -> int:
        names = next(csv.reader([text], delimiter=separator), [])
        return len({column.strip() for column in names} & set(columns))

    best = max(SEPARATORS, key=known)  # the comma, if none is better
    if best != ",":
        raise ValueError(
            f"{name}: its columns are separated by {SEPARATORS[best]}; save it with commas between them"
        )


def _check_columns(found: list[str], name: str, columns: list[str]) -> None:
    """Raise `ValueError` with each thing that is wrong with the columns `found`."""
    problems = {
        "missing": [column for column in columns if column not in found],
        "unknown": [column for column in found if column and column not in columns],
        "more than once": sorted({column for column in found if column and found.count(column) > 1}),
        "without a name, by a comma too many": [
            str(place) for place, column in enumerate(found, 1) if not column
        ],
    }
    wrong = [f"{what}: {', '.join(map(_shown, names[:20]))}" for what, names in problems.items() if names]
    if wrong:
        expected = f"expected a header line with {','.join(columns)}"
        raise ValueError(f"{name}: wrong columns ({'; '.join(wrong)}); {expected}")


def _shown(text: str) -> str:
    """Return `text` for an error message: not too long, and with invisible characters made visible."""
    return text[:60] if text.isprintable() else ascii(text[:60])


# --- Rows ------------------------------------------------------------------------------------------------


class _LongLine(Exception):
    pass


class _Lines:
    """The lines of a file from `place` to a byte, as text. `place` moves along.

    An iterator and not a generator, because it goes on after an error.
    """

    def __init__(self, file: BinaryIO, name: str, place: Place, end: int) -> None:
        self.file, self.name, self.place, self.end = file, name, place, end
        self.begin_row()

    def begin_row(self) -> None:
        self.quotes = 0  # how many the row has
        self.start = b""  # how the row begins

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        place = self.place
        if place.byte >= self.end:
            raise StopIteration
        raw = self._read()
        if not raw:
            raise ValueError(f"{self.name}, line {place.line + 1} is missing: the file has become shorter")
        place.line += 1
        if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
            while (rest := self._read()) and not rest.endswith(b"\n"):
                pass
            raise _LongLine(f"a quote is open in a line of more than {MAX_LINE_BYTES:,} bytes")
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            return self._decode_surrogates(raw, error)

    def _read(self) -> bytes:
        raw = self.file.readline(MAX_LINE_BYTES)
        self.place.byte += len(raw)
        self.quotes += raw.count(b'"')
        if len(self.start) < 1000:
            self.start += raw[:1000]
        return raw

    def _decode_surrogates(self, raw: bytes, error: UnicodeDecodeError) -> str:
        """Return a line if halves of characters are all that is wrong: that is one bad row."""
        try:
            return raw.decode(errors="surrogatepass")
        except UnicodeDecodeError:
            byte = raw[error.start : error.start + 1]
            raise ValueError(
                f"{self.name}, line {self.place.line}: byte 0x{byte.hex()} is not UTF-8 "
                f"(in Latin-1 it is {byte.decode('latin-1')!r}); save the file with the encoding UTF-8"
            ) from None


def _rows(file: BinaryIO, name: str, place: Place, end: int) -> Iterator[Row]:
    file.seek(place.byte)
    lines = _Lines(file, name, place, end)
    # `strict` makes a quote that is not closed an error. Else the reader takes the rest of the file as text.
    reader = csv.reader(lines, strict=True)
    while True:
        line = place.line + 1
        lines.begin_row()
        try:
            values = next(reader, None)
        except (csv.Error, _LongLine) as error:
            problem = _problem_of_one_row(error, lines)
            if not problem:
                cause = "a carriage return (CR) outside quotes" if _is_about_cr(error) else error
                raise ValueError(
                    f"{name}, line {place.line}: {cause} (the row begins in line {line}). Put a field "
                    "with quotes, commas or line breaks in quotes, double each quote inside it, and close it"
                ) from None
            yield Row(line, [lines.start.decode(errors="replace")], problem)
            continue
        if values is None:
            return
        if values:  # not an empty line
            yield Row(line, values)


def _problem_of_one_row(error: Exception, lines: _Lines) -> str | None:
    """Return what is wrong with a row that ends with the last line, or None if it may go on after it.

    With an odd number of quotes, one of them is open. Quotes in the wrong place cannot be counted on.
    """
    if lines.quotes % 2:
        return None
    if isinstance(error, _LongLine):
        return f"The row is longer than {MAX_LINE_BYTES:,} bytes"
    if _is_about_cr(error):
        return "The row has a carriage return (CR) outside quotes; a row ends with LF or CRLF"
    return None


def _is_about_cr(error: Exception) -> bool:
    return str(error).startswith("new-line character")


def _fingerprint(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"


# --- Writing ---------------------------------------------------------------------------------------------


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
