"""The Freesound tagging kit: what its notebooks share."""

from .workspace import setup

__all__ = ["setup"]
