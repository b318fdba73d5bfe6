"""Measure solvers against the sequential sampler: subjects x sweep -> measure -> results -> outputs and page; see `run`."""
