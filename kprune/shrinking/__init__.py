"""Channels physically removed: smaller weights, smaller tensors, fewer operations."""
