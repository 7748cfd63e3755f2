"""Flavors of models: each opens the bytes of its file, which cannot run, and scores columns of numbers."""
