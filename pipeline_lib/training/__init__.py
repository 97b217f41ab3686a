"""The training engine: loop, batches, checkpoint, weight average, lease, stopping."""
