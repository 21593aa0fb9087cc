"""A finished run in use: generation and export."""
