"""The releases and their lookup table: store, publish, roll back, read, serve."""
