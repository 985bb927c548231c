"""Frozen helpers behind one protocol: solvers, judges and experts as functions, local models, servers, recordings."""

from stratagem.helpers.endpoint import KEY_VARIABLE, Endpoint
from stratagem.helpers.helper import Counted, Helper, HelperError, Message, Question, Reply, Wording
from stratagem.helpers.local import LocalModel
from stratagem.helpers.named import helper
from stratagem.helpers.recording import Recording, request_key
from stratagem.helpers.scripted import Scripted, scripted

__all__ = [
    "KEY_VARIABLE",
    "Counted",
    "Endpoint",
    "Helper",
    "HelperError",
    "LocalModel",
    "Message",
    "Question",
    "Recording",
    "Reply",
    "Scripted",
    "Wording",
    "helper",
    "request_key",
    "scripted",
]
