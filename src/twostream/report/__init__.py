"""What was run, as one page that stands alone."""
