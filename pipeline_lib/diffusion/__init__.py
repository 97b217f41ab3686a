"""Gaussian paths, sampling grids, the denoiser interface, counter-based noise, kernels and MMD."""
