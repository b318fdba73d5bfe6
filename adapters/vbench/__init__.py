"""VBench (Huang et al., 2024) in an environment of its own: facts, staging, and a bridge of JSON lines to its Python."""
