"""Iggy's REST API: a table of routes over the same commands and dispatch as the wires."""
