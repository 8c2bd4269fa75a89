"""The running recorder: one loop that stamps and journals, and everything else at arm's length from it."""
