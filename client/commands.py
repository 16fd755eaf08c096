"""Every command as a method."""

from .administration import AdministrationCommands
from .catalog import CatalogCommands
from .messaging import MessageCommands


class Commands(CatalogCommands, MessageCommands, AdministrationCommands):
    """What a client can ask. Streams, topics, groups and users go by number or by name, and a str is always a name."""
