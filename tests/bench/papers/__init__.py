"""The tables of docs/papers.md, measured on models of the zoo that no constant was chosen on.

    python -m tests.bench.zoo train all                          # once: the models
    python -m tests.bench.papers                                 # every table, about a quarter of an hour of an idle core
    python -m tests.bench.papers --only turbo-rho,ropa-parts     # some
    python -m tests.bench.papers --peers FOLDER                  # beside them ParaSolver's own code, a clone of it

`measure` samples, `tables` says what is measured and how a table reads, `peers` runs what the papers' authors published.
"""
