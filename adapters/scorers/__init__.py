"""Metrics, one module each; `registry` finds them by module name, and outside packages by entry point."""
