"""What happened in many runs, as a table."""

from collections import Counter

from support.simdisk import Strike

OUTCOMES = ("refused", "poisoned", "start refused", "absorbed")


class Tally:
    """counts: how often things happened. outcomes: what came of each fault."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[str]] = {}
        self._open: list[Strike] = []

    def strike(self, strikes: list[Strike]) -> None:
        self._open += strikes

    def blame(self, outcome: str) -> None:
        """Note what the last fault led to that nothing is known of yet."""
        if self._open:
            self._count(self._open.pop(), outcome)

    def absorb(self) -> None:
        """Note that nobody was told of the other faults: an index that is not kept, a file that is removed later."""
        while self._open:
            self._count(self._open.pop(), "absorbed")

    def _count(self, strike: Strike, outcome: str) -> None:
        self.outcomes.setdefault(strike.what, Counter())[outcome] += 1

    def table(self) -> str:
        head = f"{'fault':28}{'struck':>9}" + "".join(f"{outcome:>15}" for outcome in OUTCOMES)
        lines = [head, "-" * len(head)]
        for what, outcomes in sorted(self.outcomes.items()):
            cells = "".join(f"{outcomes[outcome]:15,}" for outcome in OUTCOMES)
            lines.append(f"{what:28}{outcomes.total():9,}{cells}")
        lines.append("-" * len(head))
        lines += [f"{what:60}{count:12,}" for what, count in sorted(self.counts.items())]
        return "\n".join(lines)
