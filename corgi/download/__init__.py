"""The download stage: it turns rows of the plan into images, captions and a ledger."""
