"""Networks, one file each, found by looking.

A file defines `Options` (which extends `config.models.Network`, the options that all have; same things have same names
in all, so that one override fits several) and

    build(options, resolution, image_channels, outputs, classes) -> torch.nn.Module

for images (image_channels, resolution, resolution), with `outputs` channels and `classes` labels (0: none). It raises
BadConfig where they do not fit, and draws its weights from the global generator, which the caller seeds. The module
maps x (B,C,H,W), the path's condition of t (B,) and labels (B,) or None to (B, outputs, H, W); `encoder` alone maps to
logits (B, classes), and a run with it classifies x_t instead of drawing images. One with an option
`augment` takes a fourth argument, how the images were augmented (B, 9), or None. The file is imported when the
Snakefile is parsed: keep torch out of its module level, and put modules into a file that begins with `_`.
"""
