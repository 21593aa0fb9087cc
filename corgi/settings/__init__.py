"""Settings of a recipe, one section per stage, and the errors a user can cause."""
