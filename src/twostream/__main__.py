"""``python -m twostream`` is ``twostream``."""

from twostream.cli import app

app()
