"""The wire: what goes to a server, what comes back, and the administration of limits."""
