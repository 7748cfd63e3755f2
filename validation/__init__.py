"""The checks between a staged run and a release: each computes, one gate judges."""
