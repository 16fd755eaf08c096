"""`pybroker backup` and `pybroker restore` as an operator meets them: what is refused, and what is left behind."""

import errno
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pybroker import __version__
from pybroker.broker import events
from pybroker.broker.datadir import cli
from pybroker.broker.datadir.backup import back_up
from pybroker.broker.datadir.manifest import INCOMPLETE, MANIFEST
from pybroker.broker.datadir.verify import verify
from pybroker.storage.cipher import Keyring
from pybroker.storage.local.disk import Disk
from pybroker.storage.local.engine import LocalEngine
from support.datadir import CLOCK, RECORD_SIZE, SMALL_SEGMENTS, flip, offsets_read, segment, tree, write_log

Captured = pytest.CaptureFixture[str]
NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


async def make_data(root: Path, keys: Keyring | None = None) -> None:
    """Leave a log of three segments, and a catalog that knows a user."""
    await write_log(root, 8, SMALL_SEGMENTS, keys=keys)
    engine = LocalEngine.open(root, CLOCK, keys=keys)
    engine.journal.load()
    engine.journal.append(events.encode(events.UserCreated(0, "iggy", "hash", CLOCK())))
    await engine.close()


def nothing(*_: object) -> None:
    """Nobody looks at the progress."""


async def test_backup_says_what_it_holds(tmp_path: Path) -> None:
    await make_data(tmp_path / "data")
    manifest = back_up(tmp_path / "data", tmp_path / "backup", share=True, progress=nothing, clock=lambda: NOW)
    assert json.loads((tmp_path / "backup" / MANIFEST).read_text()) == {
        "pybroker": __version__,
        "source": str(tmp_path / "data"),
        "started_at": "2030-01-02T03:04:05+00:00",
        "finished_at": "2030-01-02T03:04:05+00:00",
        "logs": 1,
        "segments": 3,
        "bytes": 8 * RECORD_SIZE,
        "linked": 2,
        "reflinked": 0,
        "copied": 1,
    }
    assert manifest.segments == 3
    assert not (tmp_path / "backup" / INCOMPLETE).exists()


async def test_backup_verifies_and_stays_as_it_is(tmp_path: Path) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    before = tree(tmp_path / "backup")
    assert cli.verify([str(tmp_path / "backup")]) == 0
    assert cli.restore([str(tmp_path / "backup"), str(tmp_path / "restored")]) == 0
    assert cli.verify([str(tmp_path / "restored")]) == 0
    assert await offsets_read(tmp_path / "restored", count=8) == list(range(8))
    assert tree(tmp_path / "backup") == before


async def test_encrypted_data_is_backed_up_and_restored_without_the_key(tmp_path: Path, capsys: Captured) -> None:
    keys = Keyring([bytes(32)])
    await make_data(tmp_path / "data", keys)
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    assert cli.restore([str(tmp_path / "backup"), str(tmp_path / "restored")]) == 0
    totals = verify(tmp_path / "restored", report=nothing, progress=nothing, keys=keys)
    assert (totals.problems, totals.records) == (0, 8)
    with pytest.raises(SystemExit):
        cli.backup(["--help"])
    assert "the key is not in the backup" in capsys.readouterr().out


def fill(target: Path) -> None:
    target.mkdir()
    (target / "notes.txt").write_bytes(b"")


def begin(target: Path) -> None:
    target.mkdir()
    (target / INCOMPLETE).write_bytes(b"")


def finish(target: Path) -> None:
    begin(target)
    (target / INCOMPLETE).rename(target / MANIFEST)


@pytest.mark.parametrize(
    ("prepare", "what"), [(fill, "is not empty"), (begin, "that was not finished"), (finish, "holds a backup: ")]
)
@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_target_that_holds_something_is_refused(
    tmp_path: Path, command: str, prepare: Callable[[Path], None], what: str, capsys: Captured
) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    prepare(tmp_path / "target")
    before = tree(tmp_path)
    source = tmp_path / ("data" if command == "backup" else "backup")
    assert getattr(cli, command)([str(source), str(tmp_path / "target")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert what in line
    assert str(tmp_path / "target") in line
    assert tree(tmp_path) == before


async def test_empty_file_system_is_a_target(tmp_path: Path) -> None:
    await make_data(tmp_path / "data")
    (tmp_path / "backup" / "lost+found").mkdir(parents=True)
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0


@pytest.mark.parametrize("target", ["data", "data/backup", "data/logs/../backup"])
async def test_target_inside_of_the_source_is_refused(tmp_path: Path, target: str, capsys: Captured) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / target)]) == 1
    assert "choose a folder outside of it" in capsys.readouterr().err


def test_source_that_is_no_data_directory_is_refused(tmp_path: Path) -> None:
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 2
    assert not (tmp_path / "backup").exists()


async def test_what_is_no_whole_backup_is_not_restored(tmp_path: Path, capsys: Captured) -> None:
    await make_data(tmp_path / "backup")
    arguments = [str(tmp_path / "backup"), str(tmp_path / "restored")]
    assert cli.restore(arguments) == 1
    assert f"it has no {MANIFEST}" in capsys.readouterr().err
    (tmp_path / "backup" / INCOMPLETE).write_bytes(b"")
    assert cli.restore(arguments) == 1
    assert "was not finished" in capsys.readouterr().err
    (tmp_path / "backup" / MANIFEST).write_bytes(b"{}")
    assert cli.restore(arguments) == 1
    assert "can't be decoded" in capsys.readouterr().err
    assert not (tmp_path / "restored").exists()


async def test_backup_with_a_problem_is_restored_only_unverified(tmp_path: Path, capsys: Captured) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup"), "--copy"]) == 0
    flip(segment(tmp_path / "backup", 3), RECORD_SIZE + 300)
    arguments = [str(tmp_path / "backup"), str(tmp_path / "restored")]
    assert cli.restore(arguments) == 1
    output = capsys.readouterr()
    assert "byte 400: damaged up to byte 800" in output.out
    assert "has 1 problems" in output.err
    assert not (tmp_path / "restored").exists()
    assert cli.restore([*arguments, "--no-verify"]) == 0
    assert await offsets_read(tmp_path / "restored", count=8) == [0, 1, 2, 3, 5, 6, 7]


async def test_backup_that_lacks_a_segment_does_not_verify(tmp_path: Path, capsys: Captured) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    segment(tmp_path / "backup", 0).unlink()
    capsys.readouterr()
    assert cli.verify([str(tmp_path / "backup")]) == 1
    says = "the backup had 1 logs, 3 segments, 3200 bytes, here are 1, 2, 2000"
    assert f"{tmp_path}/backup/{MANIFEST}: byte 0: {says}" in capsys.readouterr().out


async def test_backup_that_breaks_off_is_none(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(_disk: Disk, _path: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    await make_data(tmp_path / "data")
    monkeypatch.setattr(Disk, "link", break_off)
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 130
    assert (tmp_path / "backup" / INCOMPLETE).exists()
    assert not (tmp_path / "backup" / MANIFEST).exists()
    assert cli.verify([str(tmp_path / "backup")]) == 1
    assert "this backup was not finished" in capsys.readouterr().out


async def test_damaged_catalog_is_not_backed_up(tmp_path: Path, capsys: Captured) -> None:
    await make_data(tmp_path / "data")
    journal = tmp_path / "data" / "catalog.journal"
    journal.write_bytes(b"damaged" + journal.read_bytes())
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"damaged data: {journal}: byte 0" in line


async def test_disk_that_fails_is_one_line(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_disk: Disk, _fd: int, _data: bytes, _position: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    await make_data(tmp_path / "data")
    monkeypatch.setattr(Disk, "pwrite", fail)
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


async def test_restored_directory_is_held_until_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_data(tmp_path / "data")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    refused: list[int] = []

    def start(_disk: Disk, _source_fd: int, _fd: int) -> None:
        refused.append(cli.verify([str(tmp_path / "restored")]))
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(Disk, "clone", start)
    assert cli.restore([str(tmp_path / "backup"), str(tmp_path / "restored")]) == 0
    assert set(refused) == {1}


async def test_stopped_directory_that_crashed_is_backed_up_without_its_leftovers(tmp_path: Path) -> None:
    await make_data(tmp_path / "data")
    (tmp_path / "data" / "running").write_bytes(b"lost\n")
    (tmp_path / "data" / "catalog.fresh").write_bytes(b"half")
    shutil.copytree(segment(tmp_path / "data").parent, tmp_path / "data" / "logs" / f"{9:020}.dropped")
    assert cli.backup([str(tmp_path / "data"), str(tmp_path / "backup")]) == 0
    names = {str(path.relative_to(tmp_path / "backup")) for path in (tmp_path / "backup").rglob("*") if path.is_file()}
    logs = {name for name in names if name.startswith("logs/")}
    assert names - logs == {"lock", MANIFEST, "catalog.journal", "offsets.journal"}
    assert {Path(name).parts[1] for name in logs} == {f"{1:020}"}


@pytest.mark.parametrize("on_terminal", [False, True])
def test_progress_and_lines_do_not_mix(on_terminal: bool, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: on_terminal)
    now_s = iter(range(0, 1000, 20))
    meter = cli.Meter("verified", lambda: next(now_s))
    meter.progress(0, 0)
    meter.progress(1536 * 1024, 3 << 20)
    meter.line("a finding")
    meter.progress(3 << 20, 3 << 20)
    output = capsys.readouterr()
    assert output.out == "a finding\n"
    clear = "\r\033[K"
    shown = [
        "verified 0 bytes of 0 bytes, 0 %",
        "verified 1.5 MiB of 3.0 MiB, 50 %",
        "verified 3.0 MiB of 3.0 MiB, 100 %",
    ]
    in_place = f"{clear}{shown[0]}{clear}{shown[1]}{clear}{clear}{shown[2]}"
    assert output.err == (in_place if on_terminal else "".join(f"{line}\n" for line in shown))
