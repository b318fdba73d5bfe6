"""Rounds, NFE and error of every solver on the demo models, as files: `make golden` renews them, test_golden.py compares."""
