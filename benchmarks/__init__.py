"""What Almanac costs in seconds and memory, measured on the real program as a person runs it."""
