"""The report of a run: one static folder with a page. `build.build_report` writes it, `page.collect` reads what it shows."""
