"""Six small models of different kinds, to measure on that nothing was fitted to: stock diffusers pipelines, trained here.

    python -m tests.bench.zoo list
    python -m tests.bench.zoo train NAME [--out runs/.zoo]     # one thread, a few minutes; goes on where it was stopped
    python -m tests.bench.zoo coverage [--out runs/.coverage]  # what a calibrated tolerance is worth on the reported three
    python -m tests.bench.zoo targets [--out runs/.targets]    # rounds at equal error beside the other solvers

`dit-v`, `unet-edm` and `unconditional` are for tuning: whoever chooses a constant may look at them. `dit-flow`, `unet-eps`
and `video-dit` are only reported on, so that what is said of them holds for a model that the project has not seen. This was
decided before any of them was measured. Their weights are made where they are needed, and are in no repository.
"""
