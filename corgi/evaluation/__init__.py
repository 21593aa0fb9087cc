"""Evaluation of a run: metrics and the sample grid."""
