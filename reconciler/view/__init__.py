"""VIEW, the last room of the flow: plans, outcomes and problems become lines on a terminal, or JSON.

``text`` holds the words and their escaping, one file a thing that is shown; ``progress`` alone brings in rich.
"""
