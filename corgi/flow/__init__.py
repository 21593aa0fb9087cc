"""The generic pipeline: stages, keys, resume, shards, command line."""
