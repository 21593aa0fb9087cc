"""The download stage: rows of the plan become images, captions and a ledger."""
