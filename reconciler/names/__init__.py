"""Beside the flow: names of guests for programs on this host: the lines, the places they stand in, who answers by them.

lines says which names there are; block keeps them in a file; dnsmasq has a dnsmasq answer by them; places chooses.
"""
