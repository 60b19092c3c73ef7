"""Neural networks and their training.

``segmentation`` holds S, the base model that predicts the objects; ``streams`` the two feature extractors, E_s and E_u
in Lin et al. 2020; ``training`` the loop that trains all of them. This is the only package that imports torch, and even
its settings (``segmentation/config.py``, ``streams/config.py``) must not.
"""
