"""Multilingual entity linking by dense retrieval."""

__version__ = "0.1.0"
