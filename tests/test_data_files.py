"""Files of data: what they are told by, and what is said of those that cannot be read."""

from __future__ import annotations

import gzip
import os
from hashlib import sha256
from pathlib import Path

import pytest

from servemark.harness.errors import BadInput
from servemark.harness.plan.bad_rows import BadRows
from servemark.harness.plan.data_files import csv_rows, digest_of, lines, on_disk, opened


@pytest.fixture(params=[False, True], ids=["plain", "gzipped"])
def packed(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


def written(folder: Path, content: bytes, packed: bool = False) -> Path:
    path = folder / "data"
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def test_gzip_is_told_by_the_first_bytes_and_not_by_the_name(tmp_path: Path, packed: bool) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa\n\n \nb\n", packed)
    with opened(path, "data", "") as file:
        assert list(lines(file)) == [(1, b"a\n"), (4, b"b\n")]
    with on_disk(path, "data", "") as file:  # any place, at any time
        assert os.pread(file.fileno(), 1, 8) == b"b"
    assert digest_of(path) == sha256(path.read_bytes()).hexdigest()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(BadInput, match="this is a pipe or a device"), opened(path, "data", ""):
            pass


@pytest.mark.parametrize("kept", [5, 30, -4])
def test_a_cut_gzip_file_is_broken(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "data"
    path.write_bytes(gzip.compress(b"a row\n" * 99)[:kept])
    with pytest.raises(BadInput, match="data: the gzipped file is broken"), opened(path, "data", "") as file:
        list(lines(file))


def test_what_is_not_there_is_said_with_what_to_do(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "no", "No such file or directory"), (tmp_path, "Is a directory")):
        sentence = rf"{path}: the trace cannot be read \({reason}\); name it"
        with pytest.raises(BadInput, match=sentence), opened(path, "trace", "name it"):
            pass


def test_rows_are_named_by_their_first_lines(tmp_path: Path, packed: bool) -> None:
    path, bad = written(tmp_path, b'a,b\n\n"1\n2",3\r\n4,5', packed), BadRows()
    with opened(path, "data", "") as file:
        assert list(csv_rows(file, bad, spanning=True)) == [(1, ["a", "b"]), (3, ["1\n2", "3"]), (5, ["4", "5"])]
    assert not bad.count
    with opened(path, "data", "") as file:
        assert list(csv_rows(file, bad)) == [(1, ["a", "b"]), (5, ["4", "5"])]
    assert list(bad.note(4)) == ["2 of 4 rows left out as unreadable: line 3: a quote is open up to line 4; and 1 more"]


def test_a_cell_without_end_costs_its_lines_and_not_the_file(tmp_path: Path) -> None:
    swallowed = 131072 // 10 + 1  # of ten bytes each, in a cell of at most 131,072
    path, bad = written(tmp_path, b'1\n"' + b"123456789\n" * swallowed + b"2\n"), BadRows()
    with opened(path, "data", "") as file:
        assert [cells for _, cells in csv_rows(file, bad)] == [["1"], ["2"]]
    assert bad.count == swallowed
    assert bad.first == ["line 2: field larger than field limit (131072)"]
