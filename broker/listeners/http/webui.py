"""Iggy's Web UI, below /ui as Iggy itself serves it: a folder of files for anybody. The broker comes without one.

The page asks the API for whoever signs in there, as every other client does.
"""

import logging
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from ...config import ConfigError

log = logging.getLogger(__name__)

PAGE = "index.html"


def web_ui(folder: str) -> list[BaseRoute]:
    """Return the routes of the UI in `folder`; none, and a warning, without one. Raises ConfigError."""
    if not folder:
        log.warning("http.web_ui: there is nothing to serve; set pybroker.web_ui_path to the folder of a built Web UI")
        return []
    if not Path(folder, PAGE).is_file():
        raise ConfigError("pybroker.web_ui_path", f'given "{folder}", expected a folder with an {PAGE}')
    files = _Files(directory=folder, html=True)
    return [Route("/ui", files), Mount("/ui", files)]


class _Files(StaticFiles):
    """Files, and the page for every path that is none and has no dot: the page knows its ways itself."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            return await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code == 404 and "." not in path:
                return await super().get_response(PAGE, scope)
            return PlainTextResponse(error.detail, error.status_code)
