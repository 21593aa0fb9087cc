"""Readers of inputs: URL lists, tars, Parquet, folders and precomputed embeddings, row by row."""
