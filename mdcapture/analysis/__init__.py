"""A session's story: what is analysed, the table of metrics, their values, and the pictures of it."""
