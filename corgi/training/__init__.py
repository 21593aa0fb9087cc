"""Training that survives: one loop, exact resume, committed checkpoints."""
