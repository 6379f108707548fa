"""The Freesound tagging kit: what its notebooks share."""

from .packages import install_missing

install_missing()  # before anything that may be missing is imported

from .workspace import setup  # noqa: E402

__all__ = ["setup"]
