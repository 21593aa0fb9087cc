"""The guarded fetch: the only package that contacts hosts named in data."""
