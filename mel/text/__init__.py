"""Nouns to integer rows: marking a focus, tokenising a page once, cutting windows."""
