"""Freesound tagging kit: code shared by the notebooks."""

from .workspace import setup

__all__ = ["setup"]
