# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the portal together. gunicorn runs `portal.application:create()`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, Response

from portal.directory import Directory, UnreachableError
from portal.discover import discover
from portal.guard import Memory, guard
from portal.pages import failed, pages
from portal.settings import Settings, read
from portal.web import Portal, secured

# No form here is longer; autodiscover has a limit of its own.
LARGEST = 64 * 1024


class LowerCase:
    """Clients write /Autodiscover/AutoDiscover.XML in every way there is."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self.application = application

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.lower().startswith("/autodiscover/"):
            environ["PATH_INFO"] = path.lower()
        return self.application(environ, start_response)


def create(settings: Settings | None = None) -> Flask:
    """The application. `settings`: those of the machine if left out."""
    settings = settings or read()
    application = Flask("portal")
    application.config["MAX_CONTENT_LENGTH"] = LARGEST
    application.jinja_options = {"autoescape": True, "trim_blocks": True, "lstrip_blocks": True}
    directory = Directory(settings.directory)
    application.extensions["portal"] = Portal(settings, directory, Memory(directory.login_reseller))
    for part in (guard, discover, pages):
        application.register_blueprint(part)
    application.after_request(secured)
    application.register_error_handler(404, lambda _: failed("not_found", 404))
    application.register_error_handler(405, lambda _: failed("not_found", 405))
    application.register_error_handler(413, lambda _: failed("too_large", 413))
    application.register_error_handler(UnreachableError, _unreachable)
    application.register_error_handler(500, lambda _: Response("try again later\n", 500, content_type="text/plain"))
    application.logger.setLevel(logging.INFO)
    application.wsgi_app = LowerCase(application.wsgi_app)  # type: ignore[method-assign]
    return application


def _unreachable(error: Exception) -> Response:
    # The reason has no values in it, only what libpq says of the connection.
    logging.getLogger("portal").error("the directory cannot be reached: %s", str(error.__cause__).strip())
    return Response("try again later\n", 503, {"Retry-After": "30"}, content_type="text/plain")
