"""The playground and the HTTP API of a trained run."""
