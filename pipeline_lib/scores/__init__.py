"""Scores of image sets: the Frechet distance between their features and those of the training images."""
