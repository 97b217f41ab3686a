"""Names of the random streams. A stream has one purpose, so two draws never share a counter."""

from enum import IntEnum


class Stream(IntEnum):
    """Purpose of a draw; part of the Philox counter. Numbers are for ever: a new purpose gets a new one."""

    ORDER = 0  # order of training images in an epoch
    TIME = 1  # training times
    NOISE = 2  # forward noise of training
    FLIP = 3  # horizontal flips
    PRIOR = 4  # x_T of a sampled chain
    REVERSE = 5  # noise of reverse steps
    FORWARD = 6  # forward samples that errors are measured against
    LABEL = 7  # labels of conditional samples
    DROPOUT = 8  # seeds of dropout masks
    CONTROL = 9  # noise images that serve as ceiling
    CLASSIFIER = 10  # batches of the feature extractor
    GROUP_TIME = 11  # t and number of reverse steps that a group of images shares
    GROUP_NOISE = 12  # noise of the images of a group: forward noise, then that of each reverse step
    TRAINING_INPUTS = 14  # place of a forward sample in the mixture of training inputs; noise of its reverse steps
    SPAN = 20  # how much less noise the end of a short reverse chain has than its start
    CHAIN = 21  # noise of the reverse steps of short chains: two of each step
    PROBE = 22  # probes of a divergence
    INPUT_PERTURBATION = 15  # what input perturbation adds to the forward noise of training
    AUGMENT = 23  # how an image is flipped, scaled, turned and moved
    MOMENTS = 25  # noise of the training images on which a sampler's moments are measured
    AUTOENCODER = 24  # noise of the latents of an autoencoder in training
    PERTURBATION = 30  # what the anatomy of the error adds to x_t of chains, to see what is left of it
