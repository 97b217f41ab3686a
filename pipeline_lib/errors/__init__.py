"""The cumulative error: MMD^2 between sampled and forward x_t along the chain, its uncertainty and its trend."""
