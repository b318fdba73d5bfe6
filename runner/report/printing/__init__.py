"""Prints a report to a PDF."""
