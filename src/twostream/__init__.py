"""Active learning for connectomics: two streams decide what an expert should look at.

Knows the version and nothing else: importing ``twostream`` must stay cheap and torch-free.
"""

__version__ = "0.1.0"
