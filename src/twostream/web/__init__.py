"""Proofreading in the browser: what a person sees, decides and draws, over HTTP. Must not import torch."""
