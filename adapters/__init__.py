"""Models, pipelines, ranks, media files and metrics: everything between the solvers and the outside world."""
