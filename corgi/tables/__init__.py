"""Committed tables: schemas, manifests, the store, and a run's pointers to its manifests."""
