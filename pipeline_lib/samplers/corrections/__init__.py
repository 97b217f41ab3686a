"""Corrections of a prediction while sampling, one file each, found by looking; they compose with any sampler.

A file defines `Options` (a pydantic model) and `build(options, steps) -> Correction` for a grid of so many steps: a
function of a prediction and its step that returns the prediction to go on with. `build` raises BadConfig where the
options do not suit the grid; it is called when the Snakefile is parsed too, so import torch inside functions.
"""
