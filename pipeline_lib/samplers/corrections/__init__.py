"""Corrections of a prediction while sampling, one file each, found by looking; they compose with any sampler.

A file defines `Options` (a pydantic model) and `build(options, path, steps) -> Correction` for a grid of so many steps
of a path: a function of a prediction and its step that returns the prediction to go on with, made anew for every batch
of chains. It may have `shift` (`samplers.predict`), `push` (`samplers.ancestral`), `noise` (`samplers.noise_variance`),
and `facts() -> dict`, what there is to know of the chains when they are done. `check(options, diffusion, steps,
where)`, if there, raises BadConfig (its sentence begins with `where`) where the options do not suit the path or so many
steps. `MOVES_STEPS` says that it takes steps to other t than those of the grid; `unknown(options)` is that of samplers,
and what is measured is the prediction as the network makes it, clipped where the sampling clips. An option `classifier`
('method/variant') makes the weights of that run an input of the sampling; `build` is then given a classifier `guide`,
the labels (B,) of the chains and the images that it may be given at once, too. The file is imported when the Snakefile
is parsed: import torch inside functions.
"""
