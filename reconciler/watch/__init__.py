"""WATCH: what calls the pass again and again: files that change, backends that tell, time that goes by.

``files`` and ``source`` say what is wanted, ``queue`` which resources are to be looked at, ``daemon`` does it.
"""
