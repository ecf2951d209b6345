"""APPLY and OBSERVE: ports of this host that lead to a guest behind a bridge, through one small process of each VM.

keeper      our side: has the forwarder listen where it is to, opens its sockets, starts and ends it
rules       what both sides call a forwarded port
start       the process's first lines: it gives up its rights
program     the process itself: does as it is told
streams, datagrams, neighbours, room, loop      how
"""
