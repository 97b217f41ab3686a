"""Networks: image, condition of t and labels in, one image-shaped output out."""

WEIGHTS = "weights.safetensors"  # the main average, which is the result of a training
