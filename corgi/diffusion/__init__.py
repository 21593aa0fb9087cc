"""Shifted diffusion: schedules, the shift table, forward process, samplers, guidance and losses.

The formulas carry the equation numbers of `docs/method.md`.
"""
