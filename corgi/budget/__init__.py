"""Hours, bytes, requests and dollars of a run before it starts: arithmetic over measured and published rates."""
