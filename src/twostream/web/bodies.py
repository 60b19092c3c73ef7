"""Bodies of requests: strict, bounded, and nothing beyond what is named.

Knows pydantic and how it refuses; must not know projects.
"""

from __future__ import annotations

from typing import Annotated

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from twostream.web.corrections import DrawingBody
from twostream.web.queue import ORDERS

MAX_DECISIONS = 200
MAX_LEASED = 100
KEY = r"^[0-9A-Za-z-]{8,64}(/[0-9]{1,4})?$"
UUID = r"^[0-9A-Za-z-]{8,64}$"
TEXT = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$"
"""No control characters but tabs and new lines: texts reach terminals, tables and log files."""

Identity = Annotated[StrictInt, Field(ge=1, le=2**53 - 1)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class Body(BaseModel):
    """A body that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SignInBody(Body):
    """Name and token of a person."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    token: Annotated[str, Field(max_length=200)] = ""


class LeaseBody(Body):
    """How many queries a person wants to hold, and in which order."""

    order: Annotated[str, Field(pattern=f"^({'|'.join(ORDERS)})$")] = "cluster"
    number: Annotated[StrictInt, Field(ge=0, le=MAX_LEASED)] = 24


class DecisionBody(Body):
    """One decision; see ``decisions.Decision``. ``split_of`` names the query from whose candidate a missed object was
    cut off, ``window`` the window in which one was marked."""

    key: Annotated[str, Field(pattern=KEY)]
    query: Identity | None = None
    kind: Annotated[str, Field(min_length=1, max_length=40, pattern=TEXT)]
    reason: Annotated[str, Field(max_length=2000, pattern=TEXT)] = ""
    seconds: Seconds = 0.0
    drawing: DrawingBody | None = None
    adjudicates: StrictBool = False
    is_first: StrictBool = False
    split_of: Identity | None = None
    window: Identity | None = None


class DecisionsBody(Body):
    """Decisions, in the order in which they were made."""

    decisions: Annotated[list[DecisionBody], Field(min_length=1, max_length=MAX_DECISIONS)]


def refusal(error: Exception) -> str:
    """What is wrong with a request, as a sentence.

    What came is not repeated: it may be a token, megabytes long, or no text that can be sent (NaN, half a character).
    """
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])[:100].encode("ascii", "backslashreplace").decode()
    return f"the request was not understood at {place}: {first['msg']}."


class KeyBody(Body):
    """The key of an undo or redo; ``of`` names the gesture that an undo may take back, and no other."""

    key: Annotated[str, Field(pattern=UUID)]
    of: Annotated[str, Field(pattern=UUID)] | None = None
