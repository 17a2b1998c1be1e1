"""Speech to concepts: features, the encoders, and the files of their weights."""
