"""The two feature extractors: what S predicted (supervised stream) and what the image shows (unsupervised stream).

Settings are in ``config`` (free of torch).
"""
