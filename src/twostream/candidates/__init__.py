"""Proposed instances: what they are, their identity from round to round, their patches, the rules that judge them."""
