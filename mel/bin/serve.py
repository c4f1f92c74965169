"""Answers questions about entities over HTTP, with a bundle alone.

Reads   --bundle, that mel-export published.
Serves  http://HOST:PORT/         a page to paste a text into;
        POST /link                {"text": "Paris liegt an der Seine.", "language": "de", "spans": [[0, 5], [19, 24]]}
                                  to {"links": [{"start", "end", "surface_form", "id", "title", "description",
                                  "score", "probability", "is_nil", "candidates"}, ...]}; without "spans" the
                                  mentions are detected; "title", "top_k", "nil_precision", "min_probability" and
                                  "detection_precision" are as of `mel.Linker.link`;
        POST /nif                 NIF 2.0 in Turtle, as GERBIL and ELEVANT ask, to the same with links;
        GET /health, GET /metrics whether it is well, and what it has done, for Prometheus.

Requests that come at the same time are linked together. What a request may ask for and how many may wait is
bounded; who comes when there is no room hears 429 or 503 with Retry-After. Nothing but this machine is listened to
unless --host says otherwise: there is no password and no encryption, so put a proxy in front of it. SIGTERM and
SIGINT let nobody in any more, and end the service when all that waited are answered.

Example:
  mel-serve --bundle=run/bundle
  curl -d '{"text": "Paris liegt an der Seine.", "language": "de"}' http://127.0.0.1:8080/link
"""

from __future__ import annotations

import dataclasses

from absl import logging

from mel.bin.launch import launch
from mel.config import REQUIRED, flag, group
from mel.encoder.backend import ComputeConfig, keep_compiled
from mel.linking.linker import Linker
from mel.serving.server import AddressConfig, serve
from mel.serving.service import LimitsConfig, Service


@dataclasses.dataclass(frozen=True)
class Config:
    bundle: str = flag(REQUIRED, "Folder that mel-export published.")
    address: AddressConfig = group(AddressConfig)
    limits: LimitsConfig = group(LimitsConfig)
    compute: ComputeConfig = group(ComputeConfig)


def main(config: Config) -> None:
    """Serves until a signal comes."""
    with config.address.listen() as socket:
        keep_compiled(config.compute.compilation_cache)
        linker = Linker.load(config.bundle, config.compute.precision)
        host, port = socket.getsockname()[:2]
        logging.info("Serving %s on http://%s:%d/", config.bundle, f"[{host}]" if ":" in host else host, port)
        serve(Service(linker, config.limits), socket)


def console() -> None:
    launch(main, Config)


if __name__ == "__main__":
    console()
