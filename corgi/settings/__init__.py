"""Settings of a recipe, one section a stage, and the errors a user can cause."""
