"""Open queries for the tools that people have, and their answers back: one file for each format.

``formats.py`` is the table of formats. What comes back becomes the rows of an answer table
(``project/answer_sheet.py``), so that ``answer_tables`` remains the only reader of answers.
"""

from twostream.project.exchange.formats import EXCHANGE_FORMATS, export_exchange, read_exchange

__all__ = ["EXCHANGE_FORMATS", "export_exchange", "read_exchange"]
