"""Networks: image, condition of t and labels in, one image-shaped output out."""
