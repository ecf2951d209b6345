"""OBSERVE and APPLY for what lives in an LXD: containers and all that they use. ``backend`` is the front door."""
