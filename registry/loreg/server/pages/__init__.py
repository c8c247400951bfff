"""Pages for people: each parses its URL, asks the backend with the rights of who looks, and renders a template.

A file a page; `templates/` and `static/` have what they show. What is under which path: `paths.py`.
"""
