"""The mathematics: numpy and numba only, no Spark."""
