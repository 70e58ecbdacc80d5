"""The loop that every training stage runs in; checkpoints, metrics, time accounting."""
