"""APPLY and OBSERVE: folders of the host in guests, one virtiofsd each. The guest never learns of the host's path.

source      the folder on the host: opened once, without following anything
program     which virtiofsd there is, and how it wants to be called
chamber     what a virtiofsd is started through: a mount namespace of its own, where the folder is mounted as given
daemon      the processes: started, recognised, ended
guest       mounting in the guest, by its agent
"""
