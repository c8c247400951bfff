"""How values look to people in a notebook: one line of text, HTML, data frames, pictures."""
