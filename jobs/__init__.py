"""What composes the house: Spark stages, the command line, and the entry points of spark-submit."""
