"""Plugins that model servers load."""
