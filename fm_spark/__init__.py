"""fm_spark: top-N lists and item clusters from factorization machines trained on Apache Spark."""

__version__ = "0.1.0"
