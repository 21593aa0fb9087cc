"""The comparison: shifted diffusion against its baselines over arms, embedding spaces and seeds."""
