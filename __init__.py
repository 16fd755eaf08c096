"""pybroker: a message broker that speaks Apache Iggy's protocols."""

__version__ = "0.1.0"
