"""Multilingual entity linking by dense retrieval."""

__version__ = "0.2.0"
