"""Whether another model should lead: what came of predictions, and the tests that compare models on it.

Pure: rows and outcomes come in as arguments (docs/retraining.md).
"""
