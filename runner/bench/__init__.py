"""`genrun bench`: solvers against the sequential sampler, on a model or in closed form; and the engine's overhead."""
