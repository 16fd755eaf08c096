"""What storage raises. Facts, not prose: whoever tells a person adds the words."""

from pathlib import Path


class Corrupt(Exception):
    """Stored bytes are not what was written: `what` is wrong at byte `position` of the file `path`."""

    def __init__(self, path: Path, position: int, what: str) -> None:
        super().__init__(f"{path}: byte {position}: {what}")
        self.path = path
        self.position = position
        self.what = what


class Full(Exception):
    """The disk has no room. Nothing of the append was kept; the log takes appends again when there is room."""


class Poisoned(Exception):
    """An earlier write or fsync of this file failed: it takes no more appends until a restart recovers it."""

    def __init__(self, path: Path, cause: BaseException) -> None:
        super().__init__(f"{path}: takes no more appends until restart: {cause}")
        self.path = path
        self.cause = cause


class OffsetGone(Exception):
    """The offset lies before the first one that is still stored."""


class Locked(Exception):
    """Another process holds the data directory."""

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(f"{path} is in use by {holder}")
        self.path = path
        self.holder = holder


class UnknownKey(Exception):
    """Records are encrypted with a key that was not given: `key_id` is its 8 hexadecimal digits, `path` where it is."""

    def __init__(self, key_id: str, path: Path | None = None) -> None:
        super().__init__(f"{path or 'a record'} is encrypted with key {key_id}, which was not given")
        self.key_id = key_id
        self.path = path
