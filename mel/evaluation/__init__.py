"""Recall, breakdowns and reports."""
