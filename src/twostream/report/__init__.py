"""The report: what was run, how well it worked, what was asked and how it was answered, as one HTML file.

Reads projects, their ledgers and the files of their rounds, and never changes them; must not import torch.
"""

from twostream.report.page import write_report

__all__ = ["write_report"]
