"""Curation: what needs the whole set, such as score percentiles, duplicates and the cap per domain."""
