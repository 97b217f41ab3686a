"""Ways of finding the constants of a correction, one file each, found by looking.

A file defines `Options` (a pydantic model with `images`, the chains of a trial), `FINDS`, the name of the correction
whose constants it finds, and `find(options, bench) -> correction`, which asks the `Bench` for scores or norms and
returns the options of that correction, or None where it is better left out. `PER_STEP` says that it finds a factor for
each step; `AT_GRID_TIMES`, that it compares eps at the t of the grid, so that no correction may leave them;
`check(options, diffusion, steps, where)`, if there, raises BadConfig (its sentence begins with `where`) for a path or
number of steps that it cannot serve. It is imported when the Snakefile is parsed: import torch inside functions.
"""
