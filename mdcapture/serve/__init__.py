"""A page of this machine that shows what is being captured, the sessions, their reports, and answers SQL."""
