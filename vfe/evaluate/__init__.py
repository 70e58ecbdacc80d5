"""Measures: accumulated over batches with a validity mask, exact over padding."""
