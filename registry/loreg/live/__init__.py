"""Folders and servers that follow what a selection means."""
