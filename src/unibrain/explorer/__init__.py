"""A finished run as a local web page to play with, and as plain files to hand on."""

from unibrain.explorer.export import export
from unibrain.explorer.server import make_app, serve
from unibrain.explorer.session import Session, open_session

__all__ = ["Session", "export", "make_app", "open_session", "serve"]
