"""Autoencoders, one file each, found by looking: the latents that latent diffusion learns (Rombach et al., 2022).

A file defines `Options` (which extends `config.models.Autoencoder`, the options that all have) and

    build(options, image_channels) -> torch.nn.Module

which draws its weights from the global generator, which the caller seeds. The module has

    encode(x)          images (B,C,H,W) in [-1,1] -> latents (B,L,H/f,W/f), without randomness
    decode(z)          latents -> images
    forward(x, normal) -> (reconstruction, regulariser (B,)), where `normal(shape)` gives standard normal numbers;
                       the loss is the mean error of a pixel plus the regulariser

The file is imported when the Snakefile is parsed: keep torch out of its module level.
"""
