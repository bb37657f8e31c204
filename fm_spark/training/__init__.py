"""Training on Spark: packed blocks, rounds, validation, models."""
