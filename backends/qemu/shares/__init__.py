"""APPLY and OBSERVE: folders of the host in guests, one virtiofsd each. The guest never learns of the host's path.

source      the folder on the host: opened once, without following anything
program     which virtiofsd there is, and how it wants to be called
daemon      the processes of one share: started, recognised, ended
start       the first lines of a process: the relay's
relay       a process: between QEMU and virtiofsd, so that a guest is answered even when virtiofsd has died
chamber     a process: shut in with the folder, mounted as it may be used; then it becomes virtiofsd
cold        where there is no virtiofsd: QEMU itself, by 9p, from birth
"""
