"""The command `corgi`: names for the scripts, shell completion, a first recipe."""
