"""Named recipes -> one uint8 array, labels and a manifest."""
