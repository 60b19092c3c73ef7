"""One file per step of the loop, and the loop that runs them in order."""
