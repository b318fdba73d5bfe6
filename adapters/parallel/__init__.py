"""Several ranks: those that share the points of a round, and those that share one evaluation of the model."""
