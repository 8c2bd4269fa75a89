"""From the hub's bytes to typed messages: plain functions of their inputs, with no socket, clock or file."""
