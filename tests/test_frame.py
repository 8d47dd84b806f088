"""A frame holds what the records hold, however it was built, in order of intended time."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servemark.harness.figures.frame import INT_COLUMNS, MISSING, TEXT_COLUMNS, UNKNOWN, Frame, Window
from servemark.harness.types import Record
from tests.frames import answer, at, failed, frame


def test_every_scalar_of_a_record_is_a_column() -> None:
    names = set(Record.__dataclass_fields__) - {"chunk_ns", "chunk_tokens"}
    assert set(INT_COLUMNS) | set(TEXT_COLUMNS) == names
    assert "intended_ns" in INT_COLUMNS
    assert "error" in TEXT_COLUMNS


def test_missing_values_never_pass_for_numbers() -> None:
    one = frame(failed(intended=5, sent_ns=None))
    assert one["sent_ns"][0] == MISSING
    assert np.isnan(one.ms_between("intended_ns", "sent_ns")[0])
    assert np.isnan(one.floats("prompt_tokens")[0])
    assert not Window(0, 2**62).holds(one["sent_ns"])[0]


def test_differences_are_exact_where_floats_of_stamps_would_not_be() -> None:
    late = 2**60  # 36 years of uptime in ns
    record = replace(answer(), intended_ns=late, first_token_ns=late + 1)
    assert frame(record).ms_between("intended_ns", "first_token_ns")[0] == 1e-6


def test_rows_are_put_in_order_with_their_chunks() -> None:
    records = [answer(2, 300, (10, 20)), answer(1, 100, (5,)), failed(3, 200)]
    built = frame(*records)
    assert built["request_id"].tolist() == [1, 3, 2]
    assert built.counts.tolist() == [1, 0, 2]
    assert built.chunk_ns.tolist() == [at(105), at(310), at(320)]
    assert built.chunk_rows.tolist() == [0, 2, 2]


def test_masks() -> None:
    built = frame(answer(0, 0, phase="warmup"), failed(1, 1), answer(2, 2))
    assert built.measured.tolist() == [False, True, True]
    assert built.ok.tolist() == [True, False, True]


def test_take_keeps_whole_rows() -> None:
    built = frame(*(answer(i, i * 10.0, range(1, i + 2)) for i in range(5)))
    part = built.take(np.array([4, 1]))
    assert part["request_id"].tolist() == [4, 1]
    assert part.counts.tolist() == [5, 2]
    assert part.chunk_ns.tolist() == [at(40 + ms) for ms in range(1, 6)] + [at(11), at(12)]
    assert len(built.take(built["request_id"] > 99)) == 0


@given(st.lists(st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=4), min_size=1, max_size=6))
def test_columns_and_records_build_the_same_frame(counts: list[list[int | None]]) -> None:
    records = [answer(i, i, range(10, 10 + len(each)), each) for i, each in enumerate(counts)]
    by_record = frame(*records)
    offsets = np.cumsum([0] + [len(each) for each in counts])
    columns = {name: [getattr(r, name) for r in records] for name in INT_COLUMNS + TEXT_COLUMNS}
    columns["class"] = columns.pop("class_")
    values = [UNKNOWN if t is None else t for r in records for t in r.chunk_tokens]
    by_column = Frame.from_columns(
        columns, ([ns for r in records for ns in r.chunk_ns], offsets), (np.array(values, dtype=np.int64), offsets)
    )
    for name in INT_COLUMNS + TEXT_COLUMNS:
        assert by_record[name].tolist() == by_column[name].tolist()
    assert by_record.chunk_ns.tolist() == by_column.chunk_ns.tolist()
    assert by_record.chunk_tokens.tolist() == by_column.chunk_tokens.tolist()


def test_columns_may_be_nullable_in_every_way() -> None:
    masked = np.ma.MaskedArray([1, 2], mask=[True, False])
    built = Frame.from_columns(
        {
            "intended_ns": np.array([1, 2]),
            "sent_ns": [None, 3],
            "done_ns": np.array([np.nan, 4.0]),
            "prompt_tokens": masked,
        },
        (np.arange(6), np.array([2, 4, 5])),  # a slice of a longer list column
    )
    assert built["sent_ns"].tolist() == [MISSING, 3]
    assert built["done_ns"].tolist() == [MISSING, 4]
    assert built["prompt_tokens"].tolist() == [MISSING, 2]
    assert built["first_token_ns"].tolist() == [MISSING, MISSING]
    assert built.chunk_ns.tolist() == [2, 3, 4]
    assert built.chunk_tokens.tolist() == [UNKNOWN] * 3
    assert built.measured.all()


@pytest.mark.parametrize(
    ("columns", "chunks", "said"),
    [
        ({"sent_ns": [1]}, ((), (0,)), "needs the column intended_ns"),
        ({"intended_ns": [1], "sent_ns": [1, 2]}, ((), (0,)), "sent_ns has 2 rows"),
        ({"intended_ns": [1]}, ((1, 2), (0, 1, 2)), "3 offsets for 1 rows"),
        ({"intended_ns": [1, None]}, ((), (0,)), "intended_ns is missing"),
    ],
)
def test_what_cannot_be_a_frame_is_refused(columns: dict[str, list[int]], chunks: tuple, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match=said):
        Frame.from_columns(columns, chunks)


def test_windows() -> None:
    built = frame(
        answer(0, 0, phase="warmup"), answer(1, 100), answer(2, 300, (50, 900)), answer(3, 400, phase="cooldown")
    )
    assert built.steady_window(at(90)) == Window(at(90), at(300))
    assert built.steady_window() == Window(at(100), at(300))
    assert built.whole_window() == Window(at(0), at(1201) + 1)
    assert frame().steady_window(7) == Window(7, 7)
    assert frame().whole_window().seconds == 0


def test_a_window_is_half_open() -> None:
    stamps = np.array([9, 10, 19, 20, MISSING])
    assert Window(10, 20).holds(stamps).tolist() == [False, True, True, False, False]
    assert Window(0, 1_500_000_000).seconds == 1.5
