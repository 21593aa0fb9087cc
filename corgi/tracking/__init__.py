r"""Curves and media of a run: metrics.jsonl and W\&B."""
