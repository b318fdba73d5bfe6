"""A night: generate, score, compare with the baseline and with last night, report, make room, tell somebody."""
