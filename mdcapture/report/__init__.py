"""A session as a page: figures, story and charts in one file that needs no network."""
