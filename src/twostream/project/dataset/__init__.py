"""The parts of a curated data set: its objects, the hand labels, a painted volume, and what is said of the whole."""
