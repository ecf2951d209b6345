"""The dictionary between LXD's words and ours, one file a kind, both directions side by side. Pure."""
