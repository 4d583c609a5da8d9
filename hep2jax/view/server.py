"""The server of the page, on loopback: who may ask what, and the answers.

The page itself is for anybody on this machine, who learns nothing from it. Everything else needs the token of the link.
The page sends it in a header of each request, so that neither another page in the same browser nor another server on
this machine, to which browsers would send a cookie of 127.0.0.1 as well, can use it.
"""

import asyncio
import hmac
import json
import pathlib
import re
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hep2jax import predict, report, stopping
from hep2jax.progress import warn
from hep2jax.report import palette
from hep2jax.view import downloads
from hep2jax.view.desk import Desk, DeskError, Entry, png
from tfds_builders import icap

MAX_BYTES = 128_000_000
"""Of one upload: an image and its mask."""
MAX_UPLOADS = 8
"""At the same time."""
_MAX_JSON_BYTES = 1_000_000
_FILES = pathlib.Path(__file__).parent
_PAGE = {
    "/": _FILES / "page.html",
    "/page.js": _FILES / "page.js",
    "/page.css": _FILES / "page.css",
    "/theme.css": pathlib.Path(report.__file__).with_name("theme.css"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses requests under a foreign name of this machine, from other pages, and without the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let the application do so."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in _HEADERS.items())]
            await send(message)

        refusal = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not re.fullmatch(r"(127\.0\.0\.1|localhost)(:\d+)?", host):  # another name can be made to lead here
            return PlainTextResponse("ask 127.0.0.1", 421)
        if method != "GET" and headers.get("origin", f"http://{host}") != f"http://{host}":
            return PlainTextResponse("another page may not ask this", 403)
        given = headers.get("authorization", "").encode()
        if path not in _PAGE and not hmac.compare_digest(given, f"Bearer {self._token}".encode()):
            return PlainTextResponse("open the link that hep2jax view printed", 401)
        return None


def make_app(desk: Desk, token: str, *, title: str = "") -> Starlette:
    """The application.

    Args:
        desk: holds the images.
        token: what requests must bring in `Authorization: Bearer TOKEN`.
        title: what the page calls the network's run.
    """
    answers = _Answers(desk, title)
    pages = [Route(path, _file(file)) for path, file in _PAGE.items()]
    app = Starlette(
        routes=[*pages, *answers.routes()], exception_handlers={HTTPException: _refused, DeskError: _unreadable}
    )
    app.add_middleware(Guard, token=token)
    return app


def _file(path: pathlib.Path) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        del request
        return FileResponse(path)

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code)


async def _unreadable(request: Request, error: Exception) -> Response:
    del request
    return PlainTextResponse(str(error), 422)


class _Answers:
    """The answers to the page's requests."""

    def __init__(self, desk: Desk, title: str) -> None:
        self.desk, self._title, self._uploads = desk, title, 0

    def routes(self) -> list[Route]:
        return [
            Route("/api/facts", self.facts),
            Route("/api/state", self.state),
            Route("/api/images", self.upload, methods=["POST"]),
            Route("/api/images/{key}", self.remove, methods=["DELETE"]),
            Route("/api/images/{key}/corrections", self.correct, methods=["PUT"]),
            Route("/api/images/{key}/cells/{label:int}/nearest", self.nearest),
            Route("/api/images/{key}/{layer}.png", self.layer),
            Route("/api/results.zip", self.results),
            Route("/api/corrections-{form}.zip", self.corrections),
        ]

    async def facts(self, request: Request) -> Response:
        """The network."""
        del request
        reader = self.desk.reader
        classes = [
            {"name": name, "colour": palette.pattern_colour(index), "icap": icap.describe(name)}
            for index, name in enumerate(reader.classes)
        ]
        return JSONResponse(
            {
                "title": self._title,
                "network": reader.config.model.name,
                "origin": predict.origin(reader),
                "takes_masks": reader.takes_masks,
                "has_cells": reader.takes_masks or reader.finds_cells,
                "has_one_pattern": reader.has_one_pattern,
                "max_bytes": MAX_BYTES,
                "classes": classes,
            }
        )

    async def state(self, request: Request) -> Response:
        """All images."""
        del request
        desk = self.desk
        return JSONResponse({"images": _records(desk.entries), "notes": desk.notes, "expected": desk.expected})

    async def upload(self, request: Request) -> Response:
        """Read an image: the body is the file, of `image_bytes` bytes, then the file of its mask, if there is one."""
        if self._uploads >= MAX_UPLOADS:
            raise HTTPException(503, "too many uploads at the same time; try again")
        self._uploads += 1
        try:
            with tempfile.TemporaryDirectory(prefix="hep2jax-view-") as folder:
                image, mask = await _received(request, pathlib.Path(folder))
                added = await run_in_threadpool(self.desk.add, image, _file_name(request), mask)
        finally:
            self._uploads -= 1
        present = {entry.key for entry in self.desk.entries}
        return JSONResponse({"images": _records(added), "present": sorted(present), "notes": self.desk.notes})

    async def remove(self, request: Request) -> Response:
        """Forget an image, if it is still here."""
        self.desk.remove(request.path_params["key"])
        return Response(status_code=204)

    async def correct(self, request: Request) -> Response:
        """Replace the corrections of an image: the body is {label: pattern}."""
        entry = self._entry(request)
        body = b"".join([part async for part in _bounded(request, _MAX_JSON_BYTES)])
        try:
            given = {int(label): int(pattern) for label, pattern in json.loads(body).items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise HTTPException(400, "corrections must be a JSON object of integers") from None
        self.desk.correct(entry, given)
        return Response(status_code=204)

    async def nearest(self, request: Request) -> Response:
        """The nearest training cells of a cell; the first answer waits until they are measured."""
        entry, label = self._entry(request), request.path_params["label"]
        await asyncio.wait([asyncio.wrap_future(self.desk.training_cells)])  # holds no thread
        return JSONResponse(await run_in_threadpool(self.desk.nearest, entry, label))

    async def layer(self, request: Request) -> Response:
        """The grey image that the network read, or its mask of patterns, of 8 bits."""
        entry, layer = self._entry(request), request.path_params["layer"]
        layers = dict(zip(("grey", "classes"), (entry.pixels, *entry.reading.class_masks), strict=False))
        if layer not in layers:
            raise HTTPException(404, "no such layer")
        return Response(await run_in_threadpool(png, layers[layer]), media_type="image/png")

    async def results(self, request: Request) -> Response:
        """The results of all images."""
        del request
        content = await run_in_threadpool(downloads.results, self.desk.entries, self.desk.reader)
        return Response(content, media_type="application/zip")

    async def corrections(self, request: Request) -> Response:
        """The corrections as a folder of fields or of cells."""
        if (form := request.path_params["form"]) not in downloads.FORMS:
            raise HTTPException(404, "no such form")
        classes = self.desk.reader.classes
        content = await run_in_threadpool(downloads.corrections, self.desk.entries, classes, form)
        return Response(content, media_type="application/zip")

    def _entry(self, request: Request) -> Entry:
        entry = self.desk.get(request.path_params["key"])
        if entry is None:
            raise HTTPException(404, "this image is no longer here")
        return entry


def _records(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    return [entry.record | {"corrections": entry.corrections} for entry in entries]


async def _received(request: Request, folder: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path | None]:
    """The uploaded image and mask as files in the folder."""
    text = request.query_params.get("image_bytes", "")
    length = int(text) if re.fullmatch(r"\d{1,10}", text) else MAX_BYTES
    image, mask = folder / "image", folder / "mask"
    with image.open("wb") as first, mask.open("wb") as second:
        async for part in _bounded(request, MAX_BYTES):
            of_image = max(0, length - first.tell())
            first.write(part[:of_image])
            second.write(part[of_image:])
    return image, mask if mask.stat().st_size else None


async def _bounded(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body of a request; refuses one that is, or says that it is, longer than `limit` bytes."""
    declared = request.headers.get("content-length", "0")
    received = int(declared) if re.fullmatch(r"\d{1,15}", declared) else limit + 1
    if received <= limit:
        received = 0
        async for part in request.stream():
            received += len(part)
            if received > limit:
                break
            yield part
    if received > limit:
        raise HTTPException(413, f"more than {limit // 10**6} MB")


def _file_name(request: Request) -> str:
    """The name of the uploaded file, without folders and control characters, of at most 150 characters."""
    name = re.split(r"[\\/]", request.query_params.get("name", ""))[-1]
    return "".join(c for c in name if c.isprintable())[-150:] or "image"


def start(app: Starlette, listener: socket.socket) -> tuple[uvicorn.Server, threading.Thread]:
    """Serve on another thread, so that signals stay with the main one (see `stopping`)."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    return server, thread


def serve(desk: Desk, app: Starlette, listener: socket.socket, paths: Sequence[pathlib.Path]) -> None:
    """Serve the page, and read these images, until the process is asked to stop."""
    server, thread = start(app, listener)
    try:
        for number, path in enumerate(paths):
            desk.expected = len(paths) - number
            _add(desk, path)
        desk.expected = 0
        while thread.is_alive():
            time.sleep(1)  # Python takes a thread for ended whose `join` an exception of a signal interrupts
    except stopping.Stopped as stop:
        stop.note = "the page is closed; corrections that were not downloaded are gone"
        raise
    finally:
        desk.close()
        server.should_exit = True
        thread.join(5)


def _add(desk: Desk, path: pathlib.Path) -> None:
    mask = path.with_name(f"{path.stem}_mask.png")
    try:
        desk.add(path, path.name, mask if desk.reader.takes_masks and mask.is_file() else None)
    except DeskError as error:
        warn(str(error))
