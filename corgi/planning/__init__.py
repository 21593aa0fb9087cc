"""The plan stage: identities, groups, splits and shards of the rows of a list."""
