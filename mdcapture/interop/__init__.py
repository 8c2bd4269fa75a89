"""In and out: what comes from elsewhere, and what goes to the tools that researchers already have."""
