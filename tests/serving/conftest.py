"""A service over a linker that is quick, and whose answers are known."""

import threading

import pytest
from starlette.testclient import TestClient

from mel.linking.linker import Text
from mel.serving.service import LimitsConfig, Service, application
from mel.types import Link, MelError, NamedCandidate, Span


class Kb:
    languages = ("en", "de", "ar")


class Bundle:
    kb, detector, calibration = Kb(), object(), {}


class KnownLinker:
    """Links "NIL" to nothing and every other span to Q1; finds words that begin with a capital.

    Attributes:
      batches: how many texts were linked at once.
      gate: holds the work up while it is not set.
    """

    bundle = Bundle()

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def link_batch(self, texts, top_k, nil_precision=None, min_probability=None, detection_precision=None):
        texts = list(texts)
        self.batches.append(len(texts))
        assert self.gate.wait(30)
        return [self._link(text, top_k, min_probability) for text in texts]

    def _link(self, text: Text, top_k, min_probability):
        if text.text == "unlucky":
            raise MelError("This text is unlucky.")
        if text.text == "broken":
            raise RuntimeError("a bug")
        spans = text.spans
        if spans is None:
            words = [word for word in text.text.split() if word[0].isupper()]
            spans = [Span(text.text.index(word), text.text.index(word) + len(word)) for word in words]
        candidates = tuple(
            NamedCandidate(f"Q{n}", f"Title {n} <b>", f"what {n} is", 1 / n) for n in range(1, top_k + 1)
        )
        forms = [(span, span.of(text.text)) for span in spans]
        return [Link.of(span, form, candidates, 0.75, form == "NIL") for span, form in forms]


@pytest.fixture
def linker():
    return KnownLinker()


@pytest.fixture
def service(linker):
    limits = LimitsConfig(max_body=10_000, max_characters=2000, max_spans=20, max_top_k=10, max_waiting=3, max_batch=8)
    made = Service(linker, limits)
    yield made
    linker.gate.set()
    made.batches.close()


@pytest.fixture
def client(service):
    return TestClient(application(service))
