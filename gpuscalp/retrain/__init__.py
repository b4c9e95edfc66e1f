"""Training a session's next model from its own journal, in a process of its own (docs/retraining.md)."""
