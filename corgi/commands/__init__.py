"""The command `corgi`: names for the scripts, completion in shells, a first recipe."""
