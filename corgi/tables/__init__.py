"""Committed tables: schemas, manifests, the store and a run's pointers into it."""
