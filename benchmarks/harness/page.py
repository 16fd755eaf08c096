"""A report as one page of HTML that needs nothing else."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .report import Report
from .tables import summary

FILE = "report.html"

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow-x: auto; background: #8881; padding: 1rem }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: .1rem 1rem .1rem 0; vertical-align: top }}
img {{ max-width: 100% }}
</style>
<h1>{title}</h1>
<pre>{summary}</pre>
{pictures}
<h2>How</h2>
<table>
{rows}
</table>
</html>
"""


def page_of(report: Report, pictures: Sequence[Path]) -> str:
    images = (f'<img src="data:image/png;base64,{b64encode(path.read_bytes()).decode()}">' for path in pictures)
    facts: dict[str, object] = {"command": " ".join(report.command), "started": report.started_at}
    machine, versions = report.machine, report.versions
    facts["machine"] = f"{machine.processor}, {machine.cores} cores, {machine.memory / 1e9:.1f} GB, {machine.system}"
    facts["versions"] = f"pybroker {versions.pybroker} {versions.commit}, Python {versions.python}, {versions.server}"
    facts |= {key: value for key, value in report.parameters.items() if value not in (None, "", False)}
    rows = (f"<tr><th>{escape(key)}<td>{escape(str(value))}" for key, value in facts.items())
    return _PAGE.format(
        title=escape(report.title),
        summary=escape(summary(report)),
        pictures="\n".join(images),
        rows="\n".join(rows),
    )
