"""Use of a finished run: generation and export."""
