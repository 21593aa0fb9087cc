"""Curation: rules that need the whole set, such as score percentiles, duplicates and the cap per domain."""
