"""APPLY, what is done inside a guest that runs, through its agent; nothing here asks QEMU anything."""
