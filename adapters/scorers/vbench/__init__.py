"""VBench (Huang et al., 2024), measured by vbench itself in an environment of its own."""
