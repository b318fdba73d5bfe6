"""Score the items of a run and the sets of its cells, and summarize what was measured."""
