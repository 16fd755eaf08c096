"""The folder of a run: report.json, pictures, and a page."""

import re
from datetime import datetime
from pathlib import Path

from . import page, pictures, report
from .report import Report

_UNFIT = r"[^\w.+-]+"
NO_PICTURES = "no pictures: matplotlib is not installed, pip install 'pybroker[bench]' has it"


def write(found: Report, folder: Path, name: str) -> tuple[Path, str]:
    """Write a run's files into a new folder. Returns the folder, and what there is to say about it.

    name: of the run; what is not fit for a file is replaced.
    """
    stamp = datetime.fromisoformat(found.started_at).strftime("%Y%m%dT%H%M%SZ")
    path = folder / f"{re.sub(_UNFIT, '-', name)}_{stamp}"
    path.mkdir(parents=True, exist_ok=True)
    report.write(found, path)
    try:
        drawn, said = pictures.draw(found, path), ""
    except ImportError:
        drawn, said = [], NO_PICTURES
    (path / page.FILE).write_text(page.page_of(found, drawn))
    return path, said
