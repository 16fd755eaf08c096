"""A table is Markdown, and its columns are aligned."""

import pytest
from pybroker.benchmarks.markdown import table


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    made = table(("name", "messages/s", "why"), [["a", "1", "b"], ["longer", "1,000", ""]], words=(0, 2))
    assert made.splitlines() == [
        "| name   | messages/s | why |",
        "| ------ | ---------: | --- |",
        "| a      |          1 | b   |",
        "| longer |      1,000 |     |",
    ]


def test_a_row_has_a_cell_for_each_column() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table(("name", "count"), [["a"]], words=(0,))
