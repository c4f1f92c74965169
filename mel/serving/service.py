"""A linker as a service: questions in, answers out, with what is counted on the way.

POST /link   a question (`mel.serving.requests`) in JSON, the links in JSON
POST /nif    texts in NIF 2.0 (Turtle), with or without phrases; the same with links, as GERBIL and ELEVANT ask
GET /health  what the service is, and whether it is well: 200 or 503
GET /metrics what it has done, for Prometheus
GET /        the page

What cannot be answered is {"error": a sentence}, with 400 for what is wrong with the question, 408 and 413 for a body
that comes too slowly or is too large, and 429 and 503 with Retry-After where there is no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import orjson
from absl import logging
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

import mel
from mel.config import flag
from mel.evaluation.ranking import DEPTH
from mel.linking.linker import Linker, Text
from mel.serving.answers import about, record_of
from mel.serving.batching import Batches, Busy
from mel.serving.metrics import Metrics
from mel.serving.requests import Bounds, Options, check_text, read_json
from mel.types import Link, MelError

PAGE = pathlib.Path(__file__).with_name("page.html")
CHARACTERS_A_MENTION = 100  # of a text in which nobody has looked for mentions yet
BODY_SECONDS = 30.0  # for a body to come
DRAINED_BYTES = 64 << 20  # of a body that is too large: who still sends hears no answer
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclasses.dataclass(frozen=True)
class LimitsConfig:
    """What one client and all together may ask for."""

    max_body: int = flag(1 << 20, "Most bytes of a request.")
    max_characters: int = flag(50_000, "Most characters of a text.")
    max_spans: int = flag(1000, "Most spans that are given with a text.")
    max_top_k: int = flag(DEPTH, "Most candidates of a mention.")
    max_waiting: int = flag(64, "Most requests that wait; more are sent away with status 429.")
    max_batch: int = flag(512, "Most mentions that are linked at once where many wait.")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) < 1:
                raise MelError(f"--{field.name}={value} leaves no room for anything: 1 is the least.")
        if self.max_top_k > DEPTH:
            raise MelError(f"--max_top_k={self.max_top_k} is more than the linker can give: {DEPTH} is the most.")

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.max_characters, self.max_spans, self.max_top_k)


class Service:
    """Answers questions with a linker, in the thread of its batches."""

    def __init__(self, linker: Linker, limits: LimitsConfig):
        self._linker, self.limits = linker, limits
        self.batches = Batches(self._link, limits.max_waiting, limits.max_batch)
        self.metrics = Metrics(lambda: self.batches.waiting)

    async def links(self, text: Text, options: Options) -> list[Link]:
        """The links of a text.

        Raises:
          MelError: the linker cannot answer, or finds more mentions than one request may have.
          Busy: there is no room.
        """
        weight = len(text.spans) if text.spans is not None else 1 + len(text.text) // CHARACTERS_A_MENTION
        return await self.batches.result_of(text, options, weight)

    def about(self) -> dict[str, Any]:
        """What the service is."""
        return {"status": "ok" if self.batches.is_open else "ending", "version": mel.__version__, **about(self._linker)}

    def _link(self, options: Any, texts: Sequence[Text]) -> list[list[Link]]:
        links = self._linker.link_batch(texts, **options._asdict())
        self.metrics.batch(sum(map(len, links)))
        return links


def application(service: Service) -> Starlette:
    """The service as an ASGI application."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.batches.close)

    endpoints = {
        ("/", "GET"): _page,
        ("/link", "POST"): functools.partial(_link_json, service),
        ("/nif", "POST"): functools.partial(_link_nif, service),
        ("/health", "GET"): functools.partial(_health, service),
        ("/metrics", "GET"): functools.partial(_metrics, service),
    }
    routes = [
        Route(path, _counted(service.metrics, path, endpoint), methods=[method])
        for (path, method), endpoint in endpoints.items()
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _on_http_exception})


async def _link_json(service: Service, request: Request) -> Response:
    body = await _body(service, request)
    text, options = read_json(body, service.limits.bounds)
    links = await service.links(text, options)
    return _json({"links": [record_of(link) for link in links]})


async def _link_nif(service: Service, request: Request) -> Response:
    from mel.linking import nif  # rdflib is loaded by the first who asks

    body, bounds = await _body(service, request), service.limits.bounds
    contexts = await run_in_threadpool(nif.read, body)
    for context in contexts:
        check_text(context.text, bounds)
    links = [await service.links(context.text, Options(top_k=1)) for context in contexts]  # one place in the line
    content = await run_in_threadpool(nif.annotated, contexts, links)
    return Response(content, media_type="text/turtle")


async def _health(service: Service, request: Request) -> Response:
    about_it = service.about()
    return _json(about_it, 200 if about_it["status"] == "ok" else 503)


async def _metrics(service: Service, request: Request) -> Response:
    content, media_type = service.metrics.text()
    return Response(content, media_type=media_type)


async def _page(request: Request) -> Response:
    return Response(PAGE.read_bytes(), media_type="text/html", headers=PAGE_HEADERS)


def _counted(metrics: Metrics, path: str, endpoint: Endpoint) -> Endpoint:
    """The endpoint, which counts its answers and says in a sentence what went wrong."""

    async def counted(request: Request) -> Response:
        began = time.perf_counter()
        response = await _in_a_sentence(endpoint, request)
        metrics.request(path, response.status_code, time.perf_counter() - began)
        return response

    return counted


async def _in_a_sentence(endpoint: Endpoint, request: Request) -> Response:
    try:
        return await endpoint(request)
    except MelError as error:
        return _error(400, str(error))
    except Busy as busy:
        return _error(busy.status, str(busy), {"Retry-After": str(busy.retry_after)})
    except HTTPException as error:
        return _on_http_exception(request, error)
    except ClientDisconnect:
        return _error(400, "The client has gone.")
    except Exception:
        logging.exception("A request to %s failed.", request.url.path)
        return _error(500, "The service failed to answer; its log says why.")


async def _body(service: Service, request: Request) -> bytes:
    """The body of a request.

    Raises:
      HTTPException: it is too large, or comes too slowly.
      Busy: nobody could answer it.
    """
    service.batches.check_room()
    limit, size, pieces = service.limits.max_body, 0, []
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size <= limit:
                    pieces.append(piece)
                elif size > DRAINED_BYTES:
                    break
    except TimeoutError:
        raise HTTPException(408, f"The body did not come within {BODY_SECONDS:g} seconds.") from None
    if size > limit:
        raise HTTPException(413, f"The body has more than {limit:,} bytes: send the text in parts.")
    return b"".join(pieces)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path[:100]}: there are /, /link, /nif, /health and /metrics."
    elif error.status_code == 405:
        detail = f"{request.method} is not what {request.url.path} is asked with: /link and /nif take POST, others GET."
    return _error(error.status_code, detail, error.headers)


def _error(status: int, sentence: str, headers: Any = None) -> Response:
    return _json({"error": sentence}, status, headers)


def _json(value: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type="application/json")
