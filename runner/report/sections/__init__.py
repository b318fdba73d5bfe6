"""The sections of the page: ID.py has what one collects, ID.html.j2 how it looks; its address is #ID."""
