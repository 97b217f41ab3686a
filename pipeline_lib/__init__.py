"""A benchmark of error propagation (exposure bias) in diffusion models."""

__version__ = "0.1.0"
