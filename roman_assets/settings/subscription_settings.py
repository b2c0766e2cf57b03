"""Subscriptions to products of a program: new, reprocessed and removed ones.

``subscriptions.toml`` below the data root::

    version = 1

    [subscriptions.supernovae]
    program = 10                    # all programs without it
    level = "L2"                    # all levels without it
    events = ["new", "reprocessed"] # these and "removed" without it
    mail = ["team@example.org"]
    webhook = "https://chat.example/hook"
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from roman_assets.data_root import DataRoot
from roman_assets.products.arrival import ArrivalEvent, Interest
from roman_assets.products.kind import Level
from roman_assets.products.observation import Survey
from roman_assets.settings.settings_file import read_settings

FILE_NAME = "subscriptions.toml"
_REMEDY = (
    "correct the field as docs/service.md describes, or remove the file to tell nobody of products"
)
_Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,60}$")]
_Address = Annotated[str, StringConstraints(pattern=r"^[!-~]+@[!-~]+$")]


class Subscription(BaseModel):
    """What someone is told, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    program: int | None = Field(default=None, ge=0, lt=10**5)
    """Program number."""
    survey: Survey | None = None
    """Survey."""
    level: Level | None = None
    """Level of the products."""
    events: frozenset[ArrivalEvent] = Field(default=frozenset(ArrivalEvent), min_length=1)
    """What happened to them."""
    mail: tuple[_Address, ...] = ()
    """Mail addresses, each told in a mail of its own."""
    webhook: str | None = None
    """URL that takes messages as JSON by POST."""

    @property
    def interest(self) -> Interest:
        """What is told."""
        return Interest(self.program, self.survey, self.level, self.events)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Literal[1]
    subscriptions: dict[_Name, Subscription]


def subscriptions_of(root: DataRoot) -> dict[str, Subscription]:
    """Return the subscriptions of an installation, by name.

    Raises
    ------
    BadInputError
        If the settings file is there and cannot be used.
    """
    settings = read_settings(root.path / FILE_NAME, _Settings, _REMEDY)
    return {} if settings is None else settings.subscriptions
