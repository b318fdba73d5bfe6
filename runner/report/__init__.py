"""The report of a run: one static folder with a page, `build.build_report` makes it."""
