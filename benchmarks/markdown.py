"""Tables in Markdown that a terminal shows well too."""

from collections.abc import Collection, Sequence


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[int]) -> str:
    """Return rows below their heads. words: the columns that stand to the left; numbers stand to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    rules = ["-" * width if index in words else "-" * (width - 1) + ":" for index, width in enumerate(widths)]
    lines: list[str] = []
    for row in (heads, rules, *rows):
        cells = zip(row, widths, range(len(row)), strict=True)
        aligned = [text.ljust(width) if at in words else text.rjust(width) for text, width, at in cells]
        lines.append(f"| {' | '.join(aligned)} |")
    return "\n".join(lines)
